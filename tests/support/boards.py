"""The sysfs trees of Jetson boards, written into a folder: what the drivers show, without the boards."""

import os
from collections.abc import Mapping
from pathlib import Path

SODIMM = {"0040": ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")}
# model in the device tree, I2C bus, and for every sensor's address the labels of its channels
BOARDS: dict[str, tuple[str, int, dict[str, tuple[str, ...]]]] = {
    "TX2": (
        "quill",
        0,
        {
            "0040": ("VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_4V0_WIFI"),
            "0041": ("VDD_IN", "VDD_SYS_CPU", "VDD_SYS_DDR"),
            "0042": ("VDD_MUX", "VDD_5V0_IO_SYS", "VDD_3V3_SYS"),
            "0043": ("VDD_3V3_IO_SLP", "VDD_1V8_IO", "VDD_3V3_SYS_M2"),
        },
    ),
    "TX2 NX": ("NVIDIA Jetson TX2 NX Developer Kit", 0, {"0040": ("VDD_IN", "NC", "NC")}),
    "Nano": ("NVIDIA Jetson Nano Developer Kit", 6, {"0040": ("POM_5V_IN", "POM_5V_GPU", "POM_5V_CPU")}),
    "Xavier NX": ("NVIDIA Jetson Xavier NX Developer Kit", 7, SODIMM),
    "AGX Xavier": ("Jetson-AGX", 1, {"0040": ("GPU", "CPU", "SOC"), "0041": ("CV", "VDDRQ", "SYS5V")}),
    "Orin Nano": ("NVIDIA Jetson Orin Nano Developer Kit", 1, SODIMM),
    "Orin NX": ("NVIDIA Orin NX Developer Kit", 1, SODIMM),
    "AGX Orin": (
        "Jetson AGX Orin Developer Kit",
        1,
        {"0040": ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"), "0041": ("NC", "VDDQ_VDD2_1V8AO", "NC")},
    ),
    "Thor": ("NVIDIA Jetson AGX Thor Developer Kit", 2, {"0040": ("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0")}),
}
# board: watts of its rails, and what the module draws, added by hand
CASES = {
    "TX2": (
        {"VDD_IN": 8.0, "VDD_SYS_GPU": 3.0, "VDD_SYS_SOC": 1.0, "VDD_SYS_CPU": 2.0, "VDD_SYS_DDR": 1.2, "VDD_MUX": 9.0},
        8.0,
    ),
    "TX2 NX": ({"VDD_IN": 6.5}, 6.5),
    "Nano": ({"POM_5V_IN": 4.5, "POM_5V_GPU": 1.5, "POM_5V_CPU": 1.0}, 4.5),
    "Xavier NX": ({"VDD_IN": 9.0, "VDD_CPU_GPU_CV": 4.0, "VDD_SOC": 2.0}, 9.0),
    "AGX Xavier": ({"GPU": 5.0, "CPU": 3.0, "SOC": 2.0, "CV": 1.0, "VDDRQ": 1.5, "SYS5V": 3.5}, 16.0),
    "Orin Nano": ({"VDD_IN": 7.0, "VDD_CPU_GPU_CV": 2.0, "VDD_SOC": 1.5}, 7.0),
    "Orin NX": ({"VDD_IN": 11.0, "VDD_CPU_GPU_CV": 5.0, "VDD_SOC": 2.5}, 11.0),
    "AGX Orin": ({"VDD_GPU_SOC": 10.0, "VDD_CPU_CV": 4.0, "VIN_SYS_5V0": 6.0, "VDDQ_VDD2_1V8AO": 1.0}, 20.0),
    "Thor": ({"VDD_GPU": 12.0, "VDD_CPU_SOC_MSS": 6.5, "VIN_SYS_5V0": 6.5, "VIN": 40.0}, 25.0),
}
IIO = ("TX2", "TX2 NX", "Nano", "Xavier NX", "AGX Xavier")
HWMON = ("Xavier NX", "AGX Xavier", "Orin Nano", "Orin NX", "AGX Orin", "Thor")
MILLIVOLTS = 5000


def _put(folder: Path, **files: object) -> None:
    """Writes files at once, so that no reader sees an empty one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        fresh = folder / f".{name}"
        fresh.write_text(f"{content}\n")
        os.replace(fresh, folder / name)


def write_board(
    root: Path, name: str, watts: Mapping[str, float], *, generation: str = "hwmon", model: str | None = None
) -> Path:
    """Writes the folder of I2C drivers and the files `model` and `compatible` of a device tree beside it.

    Args:
        root: Folder to write into.
        name: Board, a key of `BOARDS`.
        watts: Power by rail; 0 for those left out.
        generation: `iio` (JetPack 4) or `hwmon` (JetPack 5 and later).
        model: Device-tree model instead of the board's own.

    Returns:
        The folder of the drivers.
    """
    own_model, bus, sensors = BOARDS[name]
    (root / "model").write_bytes(((own_model if model is None else model) + "\0").encode())
    (root / "compatible").write_bytes(b"nvidia,p0000\0nvidia,tegra234\0")
    drivers = root / "drivers"
    # Numbers count down, as nothing in them can be relied on.
    for number, (address, labels) in zip((9, 8, 5, 3), sensors.items(), strict=False):
        if generation == "iio":
            folder = drivers / "ina3221x" / f"{bus}-{address}" / f"iio:device{number}"
            for n, label in enumerate(labels):
                _put(folder, **{f"rail_name_{n}": label, f"in_voltage{n}_input": MILLIVOLTS})
        else:
            folder = drivers / "ina3221" / f"{bus}-{address}" / "hwmon" / f"hwmon{number}"
            _put(folder, name="ina3221", samples=512, update_interval=430)
            _put(folder, in7_label="sum of shunt voltages", in7_input=321, curr4_input=99000)
            for n, label in enumerate(labels, start=1):
                _put(folder, **{f"in{n}_label": label, f"in{n}_input": MILLIVOLTS, f"in{n}_enable": 1})
    if name == "Thor":
        _put(drivers / "ina238" / "2-0044" / "hwmon" / "hwmon1", name="ina238", label="VIN")
    rails = [label for labels in sensors.values() for label in (*labels, "NC")] + ["VIN"]
    set_watts(root, **{**dict.fromkeys(rails, 0.0), "NC": 77.0, **watts})
    return drivers


def set_watts(root: Path, **rails: float) -> None:
    """Sets the power of rails of a board that was written under the root."""
    for file in (root / "drivers").glob("ina3221x/*/iio:device*/rail_name_?"):
        if (watts := rails.get(file.read_text().strip())) is not None:
            milliamperes = round(watts * 1e6 / MILLIVOLTS)
            n = file.name[-1]
            _put(file.parent, **{f"in_power{n}_input": round(watts * 1e3), f"in_current{n}_input": milliamperes})
    for file in (root / "drivers").glob("ina3221/*/hwmon/hwmon*/in[1-3]_label"):
        if (watts := rails.get(file.read_text().strip())) is not None:
            _put(file.parent, **{f"curr{file.name[2]}_input": round(watts * 1e6 / MILLIVOLTS)})
    for file in (root / "drivers").glob("ina238/*/hwmon/hwmon*/label"):
        if (watts := rails.get(file.read_text().strip())) is not None:
            _put(file.parent, power1_input=round(watts * 1e6))
