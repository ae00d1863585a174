"""Loaders over the rows of several directions."""

from collections.abc import Mapping, Sequence

from c2c_lightning.data.loading.epoch_loader import EpochLoader
from c2c_lightning.data.loading.joint_loader import JointLoader
from c2c_lightning.data.loading.step_plan import Processes
from c2c_lightning.data.loading.table_loaders import Loaders, TableLoaders
from c2c_lightning.data.preprocessing.data_report import DataReport, SourceReport


class JointLoaders(Loaders):
    """Training and validation loaders over one table for each direction.

    Validation has a loader for each direction, see `validation_loaders`, and no common one.
    """

    _validation = None

    def __init__(self, tables: Mapping[str, TableLoaders]) -> None:
        self._tables = dict(tables)
        self.fingerprint = "-".join(f"{name}:{table.fingerprint}" for name, table in self._tables.items())

    def train_loader(self, processes: Processes) -> JointLoader:
        """Training batches for one process of several."""
        loaders = {name: table.train_loader(processes) for name, table in self._tables.items()}
        return JointLoader(loaders, processes.accumulate)

    def validation_loaders(self, processes: Processes) -> dict[str, EpochLoader]:
        """Validation batches of each direction that has validation rows."""
        loaders = {name: table.validation_loader(processes) for name, table in self._tables.items()}
        return {name: loader for name, loader in loaders.items() if loader is not None}

    def report(self, seen: Sequence[SourceReport] = ()) -> DataReport:
        """Rows that were read, kept and dropped, over all directions."""
        reports = [table.report() for table in self._tables.values()]
        tokens = sum(report.tokens or 0 for report in reports)
        padded = sum((report.tokens or 0) / (1 - (report.padding or 0.0)) for report in reports)
        return DataReport(
            sources=[source for report in reports for source in report.sources],
            train_rows=sum(report.train_rows or 0 for report in reports),
            validation_rows=sum(report.validation_rows for report in reports),
            batches=sum(report.batches or 0 for report in reports),
            tokens=tokens,
            padding=1 - tokens / padded if padded else 0.0,
        )
