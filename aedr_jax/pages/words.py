"""Verdicts in plain words: what was found, and what it does not mean."""

from __future__ import annotations

from aedr_jax.scoring.verdicts import Verdict, is_least

__all__ = ["NOT_MEANT", "heading", "in_words", "odds"]

NOT_MEANT = (
    "“None” does not mean a real photograph. Closed services, GANs and generators whose autoencoder was not among the "
    "candidates end there too.",
    "A name does not mean that this model alone can have made the image: a model that shares its autoencoder's encoder "
    "stands on the same grid.",
    "A name does not mean that the picture was invented: a photograph that went through a candidate's autoencoder once "
    "looks like that model's own.",
    "A p-value is not the probability that the verdict is wrong.",
)


def heading(verdict: Verdict) -> str:
    """The verdict in a few words."""
    match verdict.kind:
        case "named":
            return f"It fits {' and '.join(verdict.named)}"
        case "ambiguous":
            return f"It fits several candidates: {', '.join(verdict.named)}"
        case "none":
            return "It fits none of the candidates"
        case "not assessable":
            return "Nothing can be said of this image"
        case _:
            return "This file could not be judged"


def in_words(verdict: Verdict) -> tuple[str, ...]:
    """Sentences that say what was found."""
    nearest = verdict.nearest
    match verdict.kind:
        case "named" | "ambiguous":
            said = [
                "Its fine detail stands on the grid of that model's decoder, as images do that came out of it."
                if verdict.kind == "named"
                else "Its fine detail stands on the grids of their decoders, and which one it is cannot be told."
            ]
            if len(verdict.named) > 1 and verdict.kind == "named":
                said.append("These candidates share one autoencoder, and nothing here can tell them apart.")
            if verdict.found:
                said.append(f"That was found after a search: {verdict.found}.")
            said += [odds(verdict, nearest)] if nearest else []
        case "none":
            rule = "fits better than foreign images do, at the rate of false names that was asked for"
            said = [
                f"Named would be who {rule}, and no worse than its own images."
                if verdict.p_values
                else f"No candidate {rule}."
            ]
            said += [f"The nearest is {nearest}. {odds(verdict, nearest)}"] if nearest else []
            said += [_own(verdict, nearest)] if nearest else []
        case _:
            why = verdict.unsaid.replace(verdict.path, verdict.id) if verdict.path else verdict.unsaid
            said = [f"The reason: {why}."]  # a page is passed on, and folders are nobody's business
    return tuple(filter(None, said))


def odds(verdict: Verdict, model: str) -> str:
    """What the foreign p-value of a model says, or ""."""
    p, n = verdict.foreign_p_values.get(model), verdict.foreign
    if p is None or not n:
        return ""
    if is_least(p, n):
        return f"Of the {n} and more foreign images of the reference none fits {model} so well."
    return f"Of the {n} and more foreign images of the reference {_share(p)} fit {model} so well, or better."


def _own(verdict: Verdict, model: str) -> str:
    p, n = verdict.p_values.get(model), verdict.belonging.get(model, 0)
    if p is None or not n:
        return ""
    count = "none fits" if is_least(p, n) else f"{_share(p)} fit"
    return f"Of {model}'s own {n} calibration images {count} as badly."


def _share(p: float) -> str:
    return f"{100 * p:.2g} in 100" if p < 0.995 else "nearly all"
