"""Laws of the simulated pump loop."""

import csv
import time
from pathlib import Path

import numpy as np
import pytest

from edge_agent.contract.errors import HistoryError, UsageError
from edge_agent.contract.types import Float64
from edge_agent.history import read_history
from trainer.pump import SENSORS
from trainer.simulate import (
    ENDINGS,
    FAULT_KINDS,
    FAULT_SENSORS,
    FaultPlan,
    Simulation,
    parse_faults,
    simulate,
    write_simulation,
)

HOURS, SEED = 1.5, 5
FAULT_START, FAULT_SECONDS = 2400, 1500


@pytest.fixture(scope="module")
def sound() -> Simulation:
    """Return a run without faults."""
    return simulate(HOURS, SEED)


def column(simulation: Simulation, sensor: str) -> Float64:
    """Return the values (n,) of one sensor."""
    return simulation.values[:, simulation.sensors.index(sensor)].astype(np.float64)


def test_equal_seeds_give_equal_runs_and_others_do_not(sound: Simulation) -> None:
    """A run is a function of its seed."""
    again, other = simulate(HOURS, SEED), simulate(HOURS, SEED + 1)
    np.testing.assert_array_equal(again.values, sound.values)
    assert not np.array_equal(other.values, sound.values)


def test_a_longer_run_begins_with_the_shorter_one(sound: Simulation) -> None:
    """The first rows do not depend on how many follow."""
    np.testing.assert_array_equal(simulate(0.5, SEED).values, sound.values[:1800])


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_until_the_fault_the_run_is_the_sound_one(kind: str, sound: Simulation) -> None:
    """Before a fault the rows equal those without it, and the label and the kind mark exactly the plan."""
    faulty = simulate(HOURS, SEED, faults=[FaultPlan(kind, FAULT_START, FAULT_SECONDS)])
    planned = np.zeros(len(sound.time), bool)
    planned[FAULT_START : FAULT_START + FAULT_SECONDS] = True
    np.testing.assert_array_equal(faulty.values[:FAULT_START], sound.values[:FAULT_START])
    np.testing.assert_array_equal(faulty.label, planned)
    np.testing.assert_array_equal(faulty.fault, np.where(planned, kind, ""))
    assert not sound.label.any()


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_a_fault_changes_the_sensors_it_is_blamed_on(kind: str, sound: Simulation) -> None:
    """Each blamed sensor leaves the sound run by far more than its noise, or falls silent."""
    faulty = simulate(HOURS, SEED, faults=[FaultPlan(kind, FAULT_START, FAULT_SECONDS)])
    during = slice(FAULT_START, FAULT_START + FAULT_SECONDS)
    for name in FAULT_SENSORS[kind]:
        change = (column(faulty, name) - column(sound, name))[during]
        noise = next(sensor.noise for sensor in SENSORS if sensor.name == name)
        silent = bool(np.isnan(change).all())
        assert silent == (kind == "sensor_loss")
        assert silent or np.sqrt(np.mean(change**2)) > 3.0 * noise, name


def test_a_fault_of_a_sensor_changes_that_sensor_alone(sound: Simulation) -> None:
    """The machine does not notice that a transmitter fails, and recovers its values with the plan's end."""
    faulty = simulate(HOURS, SEED, faults=[FaultPlan("sensor_freeze", FAULT_START, 600, sensor="flow_m3h")])
    place = sound.sensors.index("flow_m3h")
    others = np.delete(np.arange(len(sound.sensors)), place)
    np.testing.assert_array_equal(faulty.values[:, others], sound.values[:, others])
    assert np.unique(faulty.values[FAULT_START - 1 : FAULT_START + 600, place]).size == 1
    np.testing.assert_array_equal(faulty.values[FAULT_START + 600 :], sound.values[FAULT_START + 600 :])


def test_severity_scales_the_fault(sound: Simulation) -> None:
    """Twice the severity moves the tank further."""
    lows = [
        column(simulate(HOURS, SEED, faults=[FaultPlan("leak", 600, 3000, severity)]), "tank_level_m").min()
        for severity in (0.5, 1.0)
    ]
    assert lows[1] < lows[0] < column(sound, "tank_level_m").min()


@pytest.mark.parametrize("interval", [0.5, 1.0, 10.0, 60.0])
def test_the_plant_stays_plausible_at_every_interval(interval: float) -> None:
    """Whatever the sampling interval, running values lie about the duty and nothing oscillates or runs away."""
    run = simulate(6.0, 2, interval)
    running = column(run, "speed_rpm") > 2400.0
    bounds = {
        "flow_m3h": (40.0, 70.0),
        "discharge_pressure_bar": (2.5, 5.0),
        "suction_pressure_bar": (0.1, 0.4),
        "motor_current_a": (8.0, 20.0),
        "vibration_mm_s": (0.7, 1.8),
        "valve_position_pct": (55.0, 95.0),
    }
    for name, (low, high) in bounds.items():
        fifth, ninety_fifth = np.percentile(column(run, name)[running], [5, 95])
        assert low < fifth < ninety_fifth < high, name
    for name, low, high in (
        ("motor_temperature_degc", 15.0, 80.0),
        ("bearing_temperature_degc", 12.0, 60.0),
        ("tank_level_m", 2.0, 2.7),
    ):
        assert low < column(run, name).min() <= column(run, name).max() < high, name


@pytest.mark.parametrize("seed", range(6))
def test_every_hour_holds_a_stop_and_a_start(seed: int) -> None:
    """Normal stops and starts are in any history of an hour, and with the pump stopped nothing flows."""
    run = simulate(1.0, seed)
    standing = column(run, "speed_rpm") < 20.0
    edges = np.diff(standing.astype(int))
    assert (edges == 1).any() and (edges == -1).any()
    settled = standing & np.roll(standing, 30)
    assert column(run, "flow_m3h")[settled].max() < 0.5


def test_every_kind_of_fault_survives_a_coarse_grid_and_overlap() -> None:
    """All faults at once, on 60 s ticks, give finite values and a joined name."""
    plans = [FaultPlan(kind, 1800, 3600, 3.0) for kind in FAULT_KINDS]
    run = simulate(3.0, 1, 60.0, plans)
    assert run.fault[40] == "+".join(FAULT_KINDS)
    lost = run.sensors.index("bearing_temperature_degc")
    np.testing.assert_array_equal(np.isnan(run.values).any(axis=1), run.label == 1)
    assert np.isfinite(np.delete(run.values, lost, axis=1)).all()


def test_parse_faults_reads_what_the_command_line_gives() -> None:
    """A list in text gives the plans in order; an empty text gives none."""
    assert parse_faults("bearing_wear@3600+1800, leak@9000+600:0.5,sensor_loss/flow_m3h@12000+300") == [
        FaultPlan("bearing_wear", 3600.0, 1800.0),
        FaultPlan("leak", 9000.0, 600.0, 0.5),
        FaultPlan("sensor_loss", 12000.0, 300.0, sensor="flow_m3h"),
    ]
    assert parse_faults("") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rust@1+2", "unknown kind"),
        ("leak", "expected kind"),
        ("leak@5", "expected kind"),
        ("leak@-5+3", "expected kind"),
        ("leak@1.2.3+4", "must be numbers"),
        ("leak@1+0", "duration must be greater"),
        ("leak@1+5:0", "severity must be greater"),
        ("leak/flow_m3h@1+5", "takes no sensor"),
        ("spikes/colour@1+5", "unknown sensor"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_in_one_line(text: str, words: str) -> None:
    """A wrong plan names itself and the rule it breaks."""
    with pytest.raises(UsageError, match=words) as refusal:
        parse_faults(text)
    assert text.split("@")[0].split("/")[0] in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_impossible_runs_are_refused() -> None:
    """Lengths, intervals, seeds and faults beyond the end are refused."""
    with pytest.raises(UsageError, match="hours"):
        simulate(0.0, 1)
    with pytest.raises(UsageError, match="interval"):
        simulate(1.0, 1, interval=float("nan"))
    with pytest.raises(UsageError, match="seed"):
        simulate(1.0, -1)
    with pytest.raises(UsageError, match="after the end"):
        simulate(1.0, 1, faults=[FaultPlan("leak", 3600, 60)])


def test_the_file_says_what_was_simulated(tmp_path: Path) -> None:
    """Read back, the CSV holds the times, values, labels and kinds; a lost sensor is an empty field."""
    run = simulate(0.1, 3, faults=[FaultPlan("sensor_loss", 100, 50, sensor="flow_m3h")])
    write_simulation(run, tmp_path / "run.csv", asset="pump-1")
    with (tmp_path / "run.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["time", "asset", *run.sensors, "label", "fault"]
    assert (rows[0]["time"], rows[61]["time"]) == ("2026-01-01T00:00:00Z", "2026-01-01T00:01:01Z")
    values = [[float(row[name] or "nan") for name in run.sensors] for row in rows]
    np.testing.assert_allclose(values, run.values, rtol=1e-6, atol=1e-6)
    assert [row["fault"] for row in rows] == run.fault.tolist()
    assert [int(row["label"]) for row in rows] == run.label.tolist()
    assert {row["flow_m3h"] for row in rows[100:150]} == {""}


def test_without_an_asset_there_is_no_such_column_and_half_seconds_show(tmp_path: Path) -> None:
    """The column `asset` appears only when named, and times keep their fractions."""
    write_simulation(simulate(0.01, 3, interval=0.5), tmp_path / "run.csv")
    lines = (tmp_path / "run.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("time,flow_m3h,")
    assert lines[2].startswith("2026-01-01T00:00:00.500Z,")


def test_what_cannot_be_written_is_refused(tmp_path: Path, sound: Simulation) -> None:
    """Another ending is refused before anything is written, and so is a folder that is not there."""
    with pytest.raises(UsageError, match=r"written as \.csv, \.csv\.gz or \.parquet$"):
        write_simulation(sound, tmp_path / "run.xlsx")
    assert not list(tmp_path.iterdir())
    for ending in ENDINGS:
        with pytest.raises(HistoryError, match="cannot be written") as refusal:
            write_simulation(sound, tmp_path / "absent" / f"run{ending}")
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("asset", [None, "pump-1"])
@pytest.mark.parametrize("interval", [1.0, 0.5])
def test_every_kind_of_file_reads_as_the_same_history(
    tmp_path: Path, interval: float, asset: str | None
) -> None:
    """CSV, packed CSV and Parquet of one run give one history: times, values, holes, labels, assets, notices."""
    plans = [FaultPlan("sensor_loss", 100, 50, sensor="flow_m3h"), FaultPlan("leak", 200, 60)]
    run = simulate(0.1, 3, interval, plans)
    read = []
    for ending in ENDINGS:
        path = tmp_path / f"run{ending}"
        write_simulation(run, path, asset)
        read.append(read_history([path]))
    np.testing.assert_array_equal(read[0].time, run.time)
    np.testing.assert_array_equal(read[0].values, run.values)
    np.testing.assert_array_equal(read[0].labels, run.label)
    for other in read[1:]:
        for name in ("time", "asset", "values", "labels"):
            np.testing.assert_array_equal(getattr(other, name), getattr(read[0], name))
        for name in ("sensors", "assets", "notices", "repairs"):
            assert getattr(other, name) == getattr(read[0], name), name
    assert read[0].assets == (asset or "asset",)


def test_equal_runs_are_equal_files(tmp_path: Path, sound: Simulation) -> None:
    """No kind of file carries the hour of its writing or its own name."""
    for ending in ENDINGS:
        files = [tmp_path / f"{name}{ending}" for name in ("one", "two")]
        for file in files:
            write_simulation(sound, file)
        assert files[0].read_bytes() == files[1].read_bytes()


def test_two_days_by_the_second_take_seconds() -> None:
    """Two hundred thousand ticks are simulated in less than ten seconds of processor time."""
    began = time.process_time()
    assert len(simulate(56.0, 1).time) > 200_000
    assert time.process_time() - began < 10.0
