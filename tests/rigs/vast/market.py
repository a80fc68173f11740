"""Searches through the official client, against the same search written in Python over the fake's machines."""

# What the client asks for by itself.
DEFAULT = ("verification", "==", "verified"), ("external", "==", False), ("rentable", "==", True)
MONTH = 720.0

# Words for the client, the same as conditions, the order, and whether it is a search for bids.
SEARCHES = [
    (["gpu_name=RTX_4090 num_gpus=1 reliability>0.98 gpu_ram>=24", "-o", "dph_total", "--limit", "3"],
     [("gpu_name", "==", "RTX 4090"), ("num_gpus", "==", 1), ("reliability", ">", 0.98), ("gpu_ram", ">=", 24000)],
     [("dph_total", False)], {"limit": 3}),
    (["gpu_name in [RTX_4090,H100_SXM]", "-t", "bid"],
     [("gpu_name", "in", ["RTX 4090", "H100 SXM"])], [("score", True)], {"bid": True}),
    (["num_gpus>=4 dph<8", "-o", "dph_total-", "--storage", "200"],
     [("num_gpus", ">=", 4), ("dph_total", "<", 8)], [("dph_total", True)], {"disk": 200}),
    (["cuda_vers>=12.4 inet_down>1000 direct_port_count>=1", "-o", "inet_down-,machine_id"],
     [("cuda_max_good", ">=", 12.4), ("inet_down", ">", 1000), ("direct_port_count", ">=", 1)],
     [("inet_down", True), ("machine_id", False)], {}),
    (["gpu_name!=RTX_4090 num_gpus notin [1,2] gpu_total_ram>=80", "-o", "gpu_total_ram-,dph"],
     [("gpu_name", "!=", "RTX 4090"), ("num_gpus", "notin", [1, 2]), ("gpu_total_ram", ">=", 80000)],
     [("gpu_total_ram", True), ("dph_total", False)], {}),
    (["duration>30 disk_space>500 geolocation in [US,CA]", "-o", "reliability-"],
     [("duration", ">", 30 * 86400), ("disk_space", ">", 500), ("country", "in", ["US", "CA"])],
     [("reliability", True)], {}),
    (["static_ip=true rented=false compute_cap>=890", "-o", "gpu_name,dph"],
     [("static_ip", "==", True), ("compute_cap", ">=", 890)], [("gpu_name", False), ("dph_total", False)], {}),
    (["verified=any verification=unverified", "-o", "machine_id"],
     [("verification", "==", "unverified")], [("machine_id", False)], {"unverified": True}),
    (["driver_version>=550.127.05 gpu_ram>=40", "-o", "gpu_ram,dlperf-"],
     [("gpu_ram", ">=", 40000)], [("gpu_ram", False), ("dlperf", True)], {}),
    (["driver_version>550.127.05"], [("gpu_ram", "<", 0)], [], {}),
    (["gpu_name=H200", "--new", "-o", "dlperf_usd-"],
     [("gpu_name", "==", "H200")], [("dlperf_per_dphtotal", True)], {}),
    (["reliability>0.95 reliability<=0.97", "-n", "-o", "reliability"],
     [("reliability", ">", 0.95), ("reliability", "<=", 0.97)], [("reliability", False)], {"plain": True}),
]


def rows(state: dict, bid: bool, disk: float) -> list:
    """What each machine costs, computed anew."""
    found = []
    taken = {row["machine"] for row in state["instances"] if row["holds"]}
    for machine in state["machines"]:
        row = dict(machine["fields"])
        hour = machine["min_bid"] if bid else machine["price"]
        total = hour + disk * machine["disk"] / MONTH
        row.update(
            id=machine["ask"], dph_total=total, dlperf_per_dphtotal=row["dlperf"] / total,
            score=2 * row["dlperf"] / total, rentable=machine["rentable"] and machine["id"] not in taken,
            duration=(machine["ends_ms"] - state["now_ms"]) // 1000, country=row["geolocation"].split(", ")[-1],
        )
        found.append(row)
    return found


def keeps(row: dict, field: str, test: str, want) -> bool:
    have = row[field]
    return {
        "==": lambda: have == want, "!=": lambda: have != want, "<": lambda: have < want, "<=": lambda: have <= want,
        ">": lambda: have > want, ">=": lambda: have >= want, "in": lambda: have in want, "notin": lambda: have not in want,
    }[test]()


def expected(state: dict, conditions: list, order: list, options: dict) -> list:
    """The ids that must be found, in their order."""
    found = rows(state, options.get("bid", False), options.get("disk", 5.0))
    default = [] if options.get("plain") else [c for c in DEFAULT if not (options.get("unverified") and c[0] == "verification")]
    found = [row for row in found if all(keeps(row, *condition) for condition in [*default, *conditions])]
    found.sort(key=lambda row: row["id"])
    for field, down in reversed(order):
        found.sort(key=lambda row: row[field], reverse=down)
    # Python keeps equal rows in place also when it reverses, as the fake does.
    return [row["id"] for row in found][: options.get("limit")]


def check(fake, client, check_that) -> None:
    """Each search finds exactly the right offers in the right order."""
    for words, conditions, order, options in SEARCHES:
        fake.advance(61)
        want = expected(fake.state(), conditions, order, options)
        said = client.run("search", "offers", *words, "--raw")
        got = [offer["id"] for offer in said.json]
        name = f"search offers {' '.join(words)}"
        check_that(name, got == want, f"{len(got)} offers, wanted {len(want)}; first {got[:5]} and {want[:5]}; {said.err[-300:]}")
        check_that(f"{name}: a check worth making", bool(want) == ("driver_version>550.127.05" not in words), f"{len(want)} offers")
