from tests.core.ace.conftest import sic_files

__all__ = ["sic_files"]
