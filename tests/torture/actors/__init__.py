"""Who acts: each kind is a small state machine with random numbers of its own. Money's are apart.

What an actor did and saw goes to the record, and nowhere else.
"""

from typing import Final

from tests.torture.actors.answerers import Answerer
from tests.torture.actors.attackers import Attacker, SocketAttacker
from tests.torture.actors.base import Acting
from tests.torture.actors.clerks import Clerk, Impostor
from tests.torture.actors.deciders import Approver, Meddler, Principal
from tests.torture.actors.devices import Sdk, Slow, Socket, Sse, Transcripts, Vanishing, WebPage
from tests.torture.actors.onlookers import Looker, Prober
from tests.torture.actors.people import Host, Joiner, Operator, Poster, Sender, Steerer, Stopper
from tests.torture.actors.shoppers import ErrandRunner, Shopper
from tests.torture.actors.spenders import Buyer, Payer, PayingProgram
from tests.torture.actors.temporal_user import Resetter, TemporalUser
from tests.torture.actors.thieves import Thief

KINDS: Final[dict[str, type[Acting]]] = {
    "host": Host,
    "sender": Sender,
    "stopper": Stopper,
    "steerer": Steerer,
    "operator": Operator,
    "answerer": Answerer,
    "joiner": Joiner,
    "poster": Poster,
    "sse": Sse,
    "eventsource": WebPage,
    "socket": Socket,
    "transcript": Transcripts,
    "sdk": Sdk,
    "slow": Slow,
    "vanishing": Vanishing,
    "looker": Looker,
    "attacker": Attacker,
    "socket_attacker": SocketAttacker,
    "prober": Prober,
    "temporal": TemporalUser,
    "resetter": Resetter,
    "principal": Principal,
    "approver": Approver,
    "meddler": Meddler,
    "buyer": Buyer,
    "payer": Payer,
    "paying_program": PayingProgram,
    "shopper": Shopper,
    "errands": ErrandRunner,
    "thief": Thief,
    "clerk": Clerk,
    "impostor": Impostor,
}
