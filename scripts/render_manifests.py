"""Write ``k8s/manifests`` anew: what the chart renders to with its own values, for those who do without Helm.

    .venv/bin/python scripts/render_manifests.py

The files are committed, so that they can be read and applied as they are; ``tests/deploy`` refuses them when they
differ from the chart.
"""

from __future__ import annotations

from pathlib import Path

from helm_python import Chart

K8S = Path(__file__).parents[1] / "k8s"
RELEASE = NAMESPACE = "loramill"
HEADER = "# Rendered from k8s/chart/templates/{name} by `make k8s-manifests`: change it there.\n"
BY_HAND = ("namespace.yaml", "kustomization.yaml")


def render_manifests() -> dict[str, str]:
    """File name -> content, for every template that renders to something."""
    with Chart.load(K8S / "chart") as chart:
        rendered = chart.render(name=RELEASE, namespace=NAMESPACE)
    manifests = {Path(path).name: _tidy(text) for path, text in rendered.items() if path.endswith(".yaml")}
    return {name: HEADER.format(name=name) + text for name, text in sorted(manifests.items()) if text}


def _tidy(text: str) -> str:
    """Without the empty lines and separators that conditions in a template leave."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    while lines and lines[0] == "---":
        del lines[0]
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    folder = K8S / "manifests"
    manifests = render_manifests()
    for old in folder.glob("*.yaml"):
        if old.name not in (*manifests, *BY_HAND):
            old.unlink()
    for name, text in manifests.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
