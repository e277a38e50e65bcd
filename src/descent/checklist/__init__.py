"""What an experienced eye looks for before, during and after training: plain functions of plain values.

`before` reads the experiment; `during` the rows of `metrics.jsonl`; `after` those and `summary.json`. A warning says
that the result should not be trusted or the run was wasted, a note that something could be better. The thresholds
are rules of thumb; each stands here with its reason. Sources: Karpathy 2019, "A recipe for training neural
networks"; Bengio 2012, "Practical recommendations for gradient-based training of deep architectures"; Godbole et
al. 2023, "Deep learning tuning playbook"; Prechelt 1998, "Early stopping - but when?".
"""

from descent.checklist.after import after
from descent.checklist.before import before
from descent.checklist.during import during
from descent.checklist.line import Line, text

__all__ = ["Line", "after", "before", "during", "text"]
