"""The README.md of an adapter folder: what it is, how it was made, how good it is, how to use it."""

from typing import Any

from ttctune.recipe import Recipe


def model_card(record: dict[str, Any]) -> str:
    """Markdown for the record of an adapter."""
    data, metrics, recipe = record["data"], record["metrics"], record["recipe"]
    classes = record["classes"]
    shown = ", ".join(classes[:20]) + (f", ... ({len(classes)} in all)" if len(classes) > 20 else "")
    counts, size = record["parameters"], record["input"]
    lines = [
        f"# Adapter for {record['backbone']['name']}",
        "",
        f"Two-stage adaptation (arXiv 2303.07910) made with ttctune {record['versions']['ttctune']}.",
        "",
        f"- Classes: {shown}",
        f"- Trained parameters: {counts['channels']:,} in channels, {counts['norms']:,} in norms, "
        f"{counts['head']:,} in the head",
        f"- Images: {data.get('train_images', '?')} train, {data.get('val_images', '?')} val "
        f"({data.get('val_note', 'no val part')})",
        f"- Input: {size['height']} x {size['width']} pixels, resize = {size['resize']}",
    ]
    if metrics:
        seen = not record["settled"].get("warm_start", {}).get("val_unseen", True)
        val = "some of which the earlier run may have been trained on" if seen else "which chose nothing in training"
        lines.append(
            f"- On the {metrics['images']} images of val, {val}: "
            f"accuracy {metrics['accuracy']:.1%}, balanced accuracy {metrics['balanced_accuracy']:.1%}, "
            f"expected calibration error {metrics.get('ece_raw', metrics['ece']):.3f}"
        )
    if record["calibration"]["images"]:
        lines.append(
            f"- Probabilities are softmax(logits / T) with T = {record['calibration']['temperature']:.3f}, fitted on "
            f"that val, where the expected calibration error is then {metrics['ece']:.3f} (no clean figure)"
        )
    gates = f"; gates at {', '.join(recipe['gates'])}" if recipe["gates"] else ""
    lines += [
        f"- Seed {recipe['seed']}, {recipe['align_epochs']} epochs of alignment and {recipe['tune_epochs']} of "
        f"channel tuning ({recipe['form']} at {', '.join(recipe['sites'])}{gates}), computed in "
        f"{record['settled'].get('precision', '?')}",
        "",
        "```python",
        "import ttctune",
        'adapted = ttctune.load("PATH/OF/THIS/FOLDER")',
        'probabilities = adapted.predict(["image.jpg"])',
        "```",
        "",
        "The settings, which `ttctune fit --recipe recipe.toml` takes again; digests stand in `adapter.json`:",
        "",
        "```toml",
        *Recipe(**recipe).to_toml().splitlines(),
        "```",
        "",
    ]
    return "\n".join(lines)
