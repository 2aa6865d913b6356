"""The buyer's bench, here too."""

from tests.buyer.conftest import bench as bench
