"""`python -m uplift.fhir.generate FOLDER`: write uplift/fhir/schemas again.

FOLDER holds HL7's definitions as `dstu2`, `stu3` and `r4`: folders of JSON files, or archives named
so with `.tar.gz` or `.tgz`.  HL7's own packages work: hl7.fhir.r2.core 1.0.2, hl7.fhir.r3.core
3.0.1 (or 3.0.2) and hl7.fhir.r4.core 4.0.1.
"""

import sys
from pathlib import Path

from uplift.errors import ConfigurationError
from uplift.fhir.generate.files import write_schemas

if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python -m uplift.fhir.generate FOLDER\n\n{__doc__}")
    try:
        for path in write_schemas(Path(sys.argv[1])):
            sys.stdout.write(f"{path}  {path.stat().st_size // 1024} KiB\n")
    except ConfigurationError as error:
        sys.exit(str(error))
