"""What a claim of the verdict is made of."""

GOOD, LEVEL, POOR, UNKNOWN = "good", "level", "poor", "unknown"


def claim(section: str, state: str, text: str) -> dict[str, str]:
    """One sentence of the verdict and the section that proves it."""
    return {"section": section, "state": state, "text": text}
