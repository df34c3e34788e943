"""A fitted map as one file: tensors in safetensors, everything else in its JSON header.

Nothing is pickled and nothing in a file is executed. The classes of a user's own networks are not
stored, so that they are passed when the file is read.

``save -> file <- read -> header checks -> networks from shapes -> array checks -> load``

A file is refused with a ValueError that names it where it is damaged (two checksums: of the tensors
and of the header) and where it is whole but holds no map: whoever writes a file may write the
checksums too.
"""

from ptsne.persistence.file import FORMAT, ModelFile, checksum, read, write
from ptsne.persistence.loading import load
from ptsne.persistence.opening import open_checkpoint
from ptsne.persistence.rebuilding import build_network
from ptsne.persistence.saving import save

__all__ = [
    "FORMAT",
    "ModelFile",
    "build_network",
    "checksum",
    "load",
    "open_checkpoint",
    "read",
    "save",
    "write",
]
