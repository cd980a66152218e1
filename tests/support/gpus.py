"""Fakes of the packages that read graphics cards."""


class NVMLError(Exception):
    texts = {
        6: "Not Found",
        18: "Driver/library version mismatch",
        3: "Not Supported",
        4: "Insufficient Permissions",
        9: "Driver Not Loaded",
        15: "GPU is lost",
    }

    def __init__(self, value):
        self.value = value

    def __str__(self):
        return self.texts.get(self.value, "NVML Shared Library Not Found")

    def __eq__(self, other):  # as in pynvml, which makes its errors unhashable
        return self.value == other.value


class Nvml:
    """The functions of pynvml in use, over cards that count what the test lets them take."""

    NVMLError = NVMLError
    NVML_ERROR_NOT_SUPPORTED, NVML_ERROR_NO_PERMISSION = 3, 4
    NVML_ERROR_DRIVER_NOT_LOADED, NVML_ERROR_LIBRARY_NOT_FOUND = 9, 12
    NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18

    def __init__(self, *names, init_error=None, sliced=()):
        self.sliced = set(sliced)  # cards that MIG has cut into slices, named MIG-<card>-<slice>
        self.names, self.energy_mj = names, [1_000_000] * len(names)
        self.errors = [None] * len(names)
        self.init_error, self.users = init_error, 0

    def nvmlInit(self):
        if self.init_error:
            raise NVMLError(self.init_error)
        self.users += 1

    def nvmlShutdown(self):
        if not self.users:
            raise NVMLError(1)
        self.users -= 1

    def nvmlDeviceGetCount(self):
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index):
        return index

    def nvmlDeviceGetName(self, handle):
        return self.names[handle]

    def nvmlDeviceGetUUID(self, handle):
        return f"GPU-{handle}abc-def"

    def nvmlDeviceGetMigMode(self, handle):
        if handle not in self.sliced:
            raise NVMLError(3)
        return [1, 1]

    def nvmlDeviceGetHandleByUUID(self, uuid):
        if not uuid.startswith("MIG-") or int(uuid[4]) not in self.sliced:
            raise NVMLError(6)
        return uuid

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, part):
        return int(part[4])

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        if not self.users:
            raise NVMLError(1)
        if self.errors[handle]:
            raise NVMLError(self.errors[handle])
        return self.energy_mj[handle]

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):
        if handle:
            raise NVMLError(3)
        return 250_000

    def nvmlSystemGetDriverVersion(self):
        return "550.1"


def take(nvml, *millijoules):
    for card, value in enumerate(millijoules):
        nvml.energy_mj[card] += value


class OldNvml(Nvml):
    """Bindings of years ago: texts are bytes, and newer functions are missing."""

    nvmlDeviceGetMigMode = property()

    def nvmlDeviceGetName(self, handle):
        return self.names[handle].encode()

    def nvmlDeviceGetUUID(self, handle):
        return f"GPU-{handle}abc-def".encode()

    def nvmlSystemGetDriverVersion(self):
        return b"410.2"
