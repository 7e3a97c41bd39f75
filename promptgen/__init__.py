"""PromptGen: distributional control of frozen, pre-trained image generators.

The mathematics is that of *Generative Visual Prompt: Unifying Distributional Control of Pre-Trained Generative Models*
(Wu, Motamed, Srivastava, De la Torre, NeurIPS 2022, https://arxiv.org/abs/2209.06970).
The library needs torch, nflows, open_clip and pydantic alone; it knows nothing of any workflow engine or tracker.
"""

__version__ = "0.1.0"
