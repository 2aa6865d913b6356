"""The buyer's bench, here too."""

from tests.buyer.conftest import bench as bench
from tests.buyer.conftest import encrypted as encrypted
from tests.buyer.conftest import quick_bench as quick_bench
