"""APC: recurrent layers tell a frame to come (Chung, Hsu, Tang, Glass, Interspeech 2019)."""

from typing import ClassVar

from engine.objectives.autoregression import Recurrent


class APC(Recurrent):
    """Lets recurrent layers hear a clip frame by frame, and has them tell which frame comes a little later.

    What comes next is easily told by what is there now; a few frames later (5, of 10 ms) it takes to know which sound is
    being said, and by whom. The loss is the mean absolute error of 80 log mel energies. No layer hears what is to come, so
    that the finished upstream can follow live sound. Sizes and rates are S3PRL's, which has the padding of a batch told too:
    here only frames of clips count.
    """

    paper: ClassVar[str] = "Chung et al. 2019, arXiv:1904.03240"

    @classmethod
    def title(cls) -> str:
        return "APC"
