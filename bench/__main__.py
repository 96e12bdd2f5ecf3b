"""`make bench`: every benchmark, one after another; figures also go to bench/results.json."""

import json
from pathlib import Path

from bench import push_memory, validation

if __name__ == "__main__":
    results = {"validation": validation.main(), "push_memory": push_memory.main()}
    file = Path(__file__).with_name("results.json")
    file.write_text(json.dumps(results, indent=2) + "\n")
    print(f"Written to {file.name}")
