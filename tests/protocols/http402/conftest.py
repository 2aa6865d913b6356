"""Both sides: the buyer's bench, and a paid API."""

from tests.buyer.conftest import bench as bench
from tests.seller.paywall.conftest import seller as seller
