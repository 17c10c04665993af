"""A run of image/try as a picture: one row a step, as wide as it took."""
from xml.sax.saxutils import escape

WIDTH, LEFT, ROW, TOP = 1000, 250, 18, 46
COLOURS = {"reset": "#c2410c", "init": "#1d4ed8", "boot": "#047857"}


def rows(events):
    """(name, plan, from, to): phases as they report themselves, and the milestones between as steps of the boot."""
    out, last, open_at = [], 0.0, {}
    for event in events:
        at = event["host"]
        if event.get("kind") == "phase":
            key = (event["plan"], event["phase"])
            if event["state"] == "begin":
                open_at[key] = at
            elif key in open_at:
                out.append((event["phase"], event["plan"], open_at.pop(key), at))
                last = at
        elif event.get("kind") in ("reached", "action"):
            name = event.get("what") or f"decided: {event['action']}"
            out.append((name, "boot", last, at))
            last = at
    return out


def part_svg(part, top):
    steps = [s for s in rows(part["events"]) if s[3] - s[2] >= 0.05]
    end = max(s[3] for s in steps)
    scale = (WIDTH - LEFT - 70) / end
    text = [f'<text x="12" y="{top - 16}" font-size="15" font-weight="bold">{escape(part["title"])}: {end:.0f} s</text>']
    for second in range(0, int(end) + 1, max(10, int(end / 10) // 10 * 10)):
        x = LEFT + second * scale
        text.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{top - 6}" y2="{top + len(steps) * ROW}" stroke="#ddd"/><text x="{x:.1f}" y="{top - 8}" font-size="9" fill="#777">{second} s</text>')
    for index, (name, plan, start, stop) in enumerate(steps):
        y, x, width = top + index * ROW, LEFT + start * scale, max(1.0, (stop - start) * scale)
        text.append(f'<text x="{LEFT - 8}" y="{y + 12}" font-size="11" text-anchor="end">{escape(name)}</text>')
        text.append(f'<rect x="{x:.1f}" y="{y + 2}" width="{width:.1f}" height="{ROW - 5}" rx="2" fill="{COLOURS.get(plan, "#555")}"/>')
        text.append(f'<text x="{x + width + 4:.1f}" y="{y + 12}" font-size="10" fill="#555">{stop - start:.1f}</text>')
    return "\n".join(text), top + len(steps) * ROW


def svg(record):
    body, y = [], TOP
    for part in record["parts"]:
        text, y = part_svg(part, y)
        body.append(text)
        y += TOP
    note = f'{record["firmware"].upper()}, {"KVM" if record["accelerator"] == "kvm" else "software emulation"}; seconds'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" font-family="sans-serif">\n'
            f'<rect width="100%" height="100%" fill="white"/>\n{chr(10).join(body)}\n<text x="12" y="{y - 10}" font-size="10" fill="#777">{note}</text>\n</svg>\n')
