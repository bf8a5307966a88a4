"""Names of the files of a fit with Pacemaker."""

INPUT_FILE, LOG_FILE = "input.yaml", "log.txt"
TRAIN_FILE, TEST_FILE = "train.pckl.gzip", "test.pckl.gzip"
BASE_FILE = "base.yaml"
RESULT_FILE, ACTIVE_SET_FILE = "output_potential.yaml", "output_potential.asi"
METRICS_FILES = ("metrics.txt", "test_metrics.txt", "cycle_metrics.txt", "ladder_metrics.txt")
