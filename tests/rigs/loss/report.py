"""Tables of what was injected, what was reported, and how soon; Markdown."""


def quantile(values, q):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * q // 100) - 1))] if ordered else None


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows])


def confusion(results, key):
    """Injected kind by what was reported."""
    kinds = list(dict.fromkeys(r["kind"] for r in results))
    columns = sorted({r[key] for r in results if r.get(key)})
    rows = []
    for kind in kinds:
        mine = [r for r in results if r["kind"] == kind and r.get(key)]
        if mine:
            counts = [sum(r[key] == column for r in mine) for column in columns]
            rows.append([kind, *[count or "" for count in counts]])
    return table(["injected", *columns], rows)


def seconds(values):
    if not values:
        return ""
    return " / ".join(f"{quantile(values, q) / 1000:.2f}" for q in (50, 99, 100))


def latencies(results):
    rows = []
    for kind in dict.fromkeys(r["kind"] for r in results):
        mine = [r for r in results if r["kind"] == kind]

        def of(name):
            return [r[name] for r in mine if r.get(name) is not None]

        noticed = [min(v for v in (r["suspect"], r["lost"], r["ended"]) if v is not None)
                   for r in mine if any(r[n] is not None for n in ("suspect", "lost", "ended"))]
        rows.append([kind, len(mine), seconds(noticed), seconds(of("suspect")), seconds(of("lost")), seconds(of("ended")),
                     seconds(of("next_step")), seconds(of("again")), sum(r["false_loss"] for r in mine)])
    head = ["injected", "n", "noticed", "SUSPECT", "LOST", "ended", "next new step", "heard again after it", "false losses"]
    return table(head, rows)
