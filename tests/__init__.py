"""The tests. Several processes share them (pytest-xdist), each of which computes on one thread."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy, PyTorch and FAISS are loaded
