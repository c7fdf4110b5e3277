"""Read a published pile for training: random windows, in an order that neither workers nor ranks change.

Needs numpy and pyarrow; a folder, the Hugging Face Hub and S3 are read alike.
"""

from neuralpile_dagster.reading.pile import Pile
from neuralpile_dagster.reading.sources import open_tokenizer
from neuralpile_dagster.reading.spikes import spike_times, to_brainset
from neuralpile_dagster.reading.windows import Windows

__all__ = ["Pile", "Windows", "open_tokenizer", "spike_times", "to_brainset"]
