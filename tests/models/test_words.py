"""A model knows its words without the package that draws its images: both have the same."""

from energycomp_clevr import objects
from energycomp_datasets.clevr.scenes import ATTRIBUTES as CLEVR
from energycomp_datasets.faces.avatars import ATTRIBUTES as FACES
from energycomp_datasets.solids.solids import CONCEPTS
from energycomp_faces import model as faces
from energycomp_text import model as text


def test_models_and_data_have_the_same_words() -> None:
    assert objects.ATTRIBUTES == CLEVR
    assert list(objects.ATTRIBUTES) == list(CLEVR)
    assert faces.ATTRIBUTES == FACES
    assert text.CONCEPTS == CONCEPTS
