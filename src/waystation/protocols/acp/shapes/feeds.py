"""The product feed."""

from typing import Annotated, ClassVar

from pydantic import (
    Field,
    StrictBool,
    StrictInt,
    StringConstraints,
)

from waystation.models.commerce import (
    DateTime,
    Many,
    Text,
)
from waystation.protocols.acp.shapes.base import AcpModel, Amount, Id, Number, StatedModel, WebUrl
from waystation.protocols.acp.shapes.lines import VariantOption


class FeedDescription(AcpModel):
    """Text in one or more formats."""

    plain: Text | None = None
    html: Text | None = None
    markdown: Text | None = None


class FeedPrice(AcpModel):
    """A price in a feed: minor units, ISO 4217 in *upper* case. For display only."""

    amount: Annotated[Amount, Field(ge=0)]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


class FeedAvailability(AcpModel):
    """Whether a variant can be bought."""

    available: StrictBool | None = None
    status: Text | None = None


class FeedBarcode(AcpModel):
    """A GTIN, UPC or the like."""

    type: Text
    value: Text


class FeedMedia(AcpModel):
    """An image or video."""

    type: Text
    url: WebUrl
    alt_text: Text | None = None
    width: StrictInt | None = None
    height: StrictInt | None = None


class FeedCategory(AcpModel):
    """A category in a taxonomy."""

    value: Text
    taxonomy: Text | None = None


class FeedLink(AcpModel):
    """A page of a feed's seller."""

    type: Text
    title: Text | None = None
    url: WebUrl


class FeedSeller(AcpModel):
    """Who sells."""

    name: Text | None = None
    links: Many[FeedLink] | None = None


class FeedMeasure(AcpModel):
    """An amount of goods."""

    value: Number
    unit: Text


class FeedUnitPrice(AcpModel):
    """A price for a reference amount, such as 100 g."""

    amount: Annotated[Amount, Field(ge=0)]
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    measure: FeedMeasure
    reference: FeedMeasure


class FeedVariant(StatedModel):
    """Something that can be bought: its ``id`` is the item id of a checkout."""

    DECIDES: ClassVar = frozenset({"id", "title"})

    id: Id
    title: Text
    description: FeedDescription | None = None
    url: WebUrl | None = None
    barcodes: Many[FeedBarcode] | None = None
    price: FeedPrice | None = None
    list_price: FeedPrice | None = None
    unit_price: FeedUnitPrice | None = None
    availability: FeedAvailability | None = None
    categories: Many[FeedCategory] | None = None
    condition: Many[Text] | None = None
    variant_options: Many[VariantOption] | None = None
    media: Many[FeedMedia] | None = None
    seller: FeedSeller | None = None
    marketplace: FeedSeller | None = None


class FeedProduct(StatedModel):
    """A product and its variants."""

    DECIDES: ClassVar = frozenset({"id"})

    id: Id
    title: Text | None = None
    description: FeedDescription | None = None
    url: WebUrl | None = None
    media: Many[FeedMedia] | None = None
    variants: Many[FeedVariant]


class FeedMetadata(AcpModel):
    """A feed."""

    id: Id
    target_country: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")] | None = None
    updated_at: DateTime | None = None


class FeedProducts(StatedModel):
    """``ProductsResponse``, and the body of a push (``UpsertProductsRequest``)."""

    DECIDES: ClassVar = frozenset[str]()

    products: Annotated[tuple[FeedProduct, ...], Field(max_length=10_000)]
