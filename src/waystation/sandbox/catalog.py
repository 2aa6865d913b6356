"""The sandbox shop's goods, taxes, shipping and discounts, and its stock in SQLite.

Tax and percentages are basis points (1/100 of a percent), rounded half up to whole minor units.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from waystation.models.base import Frozen
from waystation.protocols.acp import RequestedItem
from waystation.seller import OutOfStockError

BASIS_POINTS: Final = 10_000


class Good(Frozen):
    """An item for sale. ``stock`` is what a new shop starts with; ``None`` means that it never runs out."""

    id: str
    product_id: str
    title: str
    description: str
    unit_amount: int
    kind: Literal["shipping", "digital"] = "shipping"
    stock: int | None = None
    max_quantity: int | None = None
    options: Mapping[str, str] = {}
    adults_only: bool = False


GOODS: Final[dict[str, Good]] = {
    good.id: good
    for good in (
        Good(
            id="mug_blue",
            product_id="mug",
            title="Stoneware mug, blue",
            description="A 350 ml mug, glazed by hand.",
            unit_amount=1_800,
            stock=40,
            options={"Color": "Blue"},
        ),
        Good(
            id="mug_sand",
            product_id="mug",
            title="Stoneware mug, sand",
            description="A 350 ml mug, glazed by hand.",
            unit_amount=1_800,
            stock=3,
            options={"Color": "Sand"},
        ),
        Good(
            id="lamp_desk",
            product_id="lamp",
            title="Desk lamp",
            description="An aluminium desk lamp with a warm light.",
            unit_amount=6_400,
            stock=12,
            max_quantity=4,
        ),
        Good(
            id="print_last",
            product_id="print",
            title="Screen print, last copy",
            description="A signed screen print, 50 × 70 cm. There is one left.",
            unit_amount=12_000,
            stock=1,
        ),
        Good(
            id="ebook_tides",
            product_id="ebook",
            title="The Book of Tides (e-book)",
            description="An EPUB of 212 pages.",
            unit_amount=1_250,
            kind="digital",
        ),
        Good(
            id="font_license",
            product_id="font",
            title="Harbour Sans, desktop license",
            description="A typeface in nine weights, for one seat.",
            unit_amount=4_900,
            kind="digital",
            max_quantity=10,
        ),
        Good(
            id="wine_red",
            product_id="wine",
            title="Red wine, 0.75 l",
            description="Sold to adults only: a person has to confirm their age.",
            unit_amount=2_300,
            stock=60,
            adults_only=True,
        ),
    )
}

TAX_BASIS_POINTS: Final[dict[str, int]] = {"CA": 825, "NY": 888, "TX": 625, "WA": 650}
"""Tax rates by state; other states have no tax. Digital goods are taxed in Texas and Washington only."""

DIGITAL_TAX_STATES: Final = frozenset({"TX", "WA"})


class Code(Frozen):
    """A discount code: a percentage of the goods, or an amount off the whole."""

    name: str
    percent: int = 0
    amount: int = 0
    minimum: int = 0
    expired: bool = False
    uses: int | None = None


CODES: Final[dict[str, Code]] = {
    "SAVE10": Code(name="10% off", percent=10),
    "WELCOME5": Code(name="$5 off orders from $30", amount=500, minimum=3_000),
    "SUMMER24": Code(name="Summer sale", percent=20, expired=True),
    "FIRST1": Code(name="25% off, once", percent=25, uses=1),
}


def share(amount: int, basis_points: int) -> int:
    """Returns a share of an amount, rounded half up."""
    return (amount * basis_points + BASIS_POINTS // 2) // BASIS_POINTS


_SCHEMA = """
CREATE TABLE IF NOT EXISTS stock (item TEXT PRIMARY KEY, on_hand INTEGER NOT NULL CHECK (on_hand >= 0));
CREATE TABLE IF NOT EXISTS reserved (
  checkout TEXT NOT NULL, item TEXT NOT NULL, quantity INTEGER NOT NULL, PRIMARY KEY (checkout, item));
CREATE TABLE IF NOT EXISTS sales (
  order_id TEXT PRIMARY KEY, number INTEGER NOT NULL, checkout TEXT NOT NULL, total INTEGER NOT NULL,
  payment_intent TEXT);
CREATE TABLE IF NOT EXISTS used_codes (
  code TEXT NOT NULL, order_id TEXT NOT NULL, PRIMARY KEY (code, order_id));
CREATE TABLE IF NOT EXISTS adults (email TEXT PRIMARY KEY);
"""


class Stockroom:
    """Stock on hand, reserved and sold. Methods are synchronous; each is one transaction."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.executescript(_SCHEMA)
        with self._transaction():
            for good in GOODS.values():
                if good.stock is not None:
                    self._db.execute("INSERT OR IGNORE INTO stock VALUES (?, ?)", (good.id, good.stock))

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def available(self, item: str, checkout: str | None = None) -> int | None:
        """Returns how many items a checkout can have: unreserved stock plus what it has reserved itself."""
        row = self._db.execute(
            "SELECT on_hand + coalesce((SELECT quantity FROM reserved WHERE checkout = ? AND item = ?), 0) "
            "FROM stock WHERE item = ?",
            (checkout, item, item),
        ).fetchone()
        return None if row is None else int(row[0])

    def set_stock(self, item: str, on_hand: int) -> None:
        with self._transaction():
            self._db.execute("UPDATE stock SET on_hand = ? WHERE item = ?", (on_hand, item))

    def reserve(self, checkout: str, items: tuple[RequestedItem, ...]) -> None:
        with self._transaction():
            self._put_back(checkout)
            for item in items:
                left = self.available(item.id)
                if left is None:
                    continue
                if left < item.quantity:
                    raise OutOfStockError(item.id, left)
                self._db.execute(
                    "UPDATE stock SET on_hand = on_hand - ? WHERE item = ?", (item.quantity, item.id)
                )
                self._db.execute(
                    "INSERT INTO reserved VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET "
                    "quantity = quantity + excluded.quantity",
                    (checkout, item.id, item.quantity),
                )

    def release(self, checkout: str) -> None:
        with self._transaction():
            self._put_back(checkout)

    def _put_back(self, checkout: str) -> None:
        self._db.execute(
            "UPDATE stock SET on_hand = on_hand + (SELECT quantity FROM reserved WHERE checkout = ? AND "
            "reserved.item = stock.item) WHERE item IN (SELECT item FROM reserved WHERE checkout = ?)",
            (checkout, checkout),
        )
        self._db.execute("DELETE FROM reserved WHERE checkout = ?", (checkout,))

    def sell(
        self, order_id: str, checkout: str, total: int, payment_intent: str | None, codes: tuple[str, ...]
    ) -> int:
        """Records a sale once and returns its number. The reserved stock is gone."""
        with self._transaction():
            known = self._db.execute("SELECT number FROM sales WHERE order_id = ?", (order_id,)).fetchone()
            if known is not None:
                return int(known[0])
            row = self._db.execute("SELECT coalesce(max(number), 1000) + 1 FROM sales").fetchone()
            number = int(row[0])
            self._db.execute(
                "INSERT INTO sales VALUES (?, ?, ?, ?, ?)",
                (order_id, number, checkout, total, payment_intent),
            )
            for code in codes:
                self._db.execute("INSERT INTO used_codes VALUES (?, ?)", (code, order_id))
            self._db.execute("DELETE FROM reserved WHERE checkout = ?", (checkout,))
            return number

    def uses(self, code: str) -> int:
        row = self._db.execute("SELECT count(*) FROM used_codes WHERE code = ?", (code,)).fetchone()
        return int(row[0])

    def sales(self) -> list[dict[str, object]]:
        names = ("order_id", "number", "checkout", "total", "payment_intent")
        rows = self._db.execute("SELECT order_id, number, checkout, total, payment_intent FROM sales")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def reservations(self) -> list[tuple[str, str, int]]:
        return list(self._db.execute("SELECT checkout, item, quantity FROM reserved"))

    def confirm_adult(self, email: str) -> None:
        with self._transaction():
            self._db.execute("INSERT OR IGNORE INTO adults VALUES (?)", (email.lower(),))

    def is_adult(self, email: str) -> bool:
        return bool(self._db.execute("SELECT 1 FROM adults WHERE email = ?", (email.lower(),)).fetchone())
