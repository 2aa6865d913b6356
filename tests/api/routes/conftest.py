"""A worker for purchases, and who sells to it."""

from tests.workflows.purchase.conftest import encrypted as encrypted
from tests.workflows.purchase.conftest import processor as processor
from tests.workflows.purchase.conftest import purchase_queue as purchase_queue
from tests.workflows.purchase.conftest import scripted as scripted
from tests.workflows.purchase.conftest import seller as seller
