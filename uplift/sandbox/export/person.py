"""The synthetic person: what the laboratories and nurses of both hospitals measure over the years.

A woman born in 1961 with type 2 diabetes found in 2015, which metformin, later empagliflozin,
brings under control, and with high blood pressure and lipids that are treated from 2014 on.
"""

import itertools
from dataclasses import dataclass

from uplift.sandbox.export.entry import dice

BIRTH_DATE = "1961-04-12"
PATIENT_NAME = "Mara Ødegård-Vance"


@dataclass(frozen=True, slots=True)
class Measure:
    """A quantity with the course it takes from 2014 to 2025."""

    loinc: str
    display: str
    unit: str
    code: str
    """The unit in UCUM."""
    places: int
    noise: float
    course: tuple[tuple[float, float], ...]
    """(year, value) points; between them it changes evenly."""
    low: str | None = None
    high: str | None = None

    def at(self, date: str, seed: int) -> str:
        """The value on that day, with as many decimals as the instrument prints."""
        moment = int(date[:4]) + (int(date[5:7]) - 1) / 12 + int(date[8:10]) / 365
        wobble = dice(seed, self.loinc, date).gauss(0, self.noise)
        return f"{self._even(moment) + wobble:.{self.places}f}"

    def _even(self, moment: float) -> float:
        points = self.course
        for (before, low), (after, high) in itertools.pairwise(points):
            if moment <= after:
                return low + (high - low) * max(0.0, moment - before) / (after - before)
        return points[-1][1]

    def flag(self, value: str) -> str | None:
        """`H` or `L` when the value is outside the reference range."""
        if self.high is not None and float(value) > float(self.high):
            return "H"
        if self.low is not None and float(value) < float(self.low):
            return "L"
        return None


def _steady(value: float) -> tuple[tuple[float, float], ...]:
    return ((2014.0, value), (2026.0, value))


A1C = Measure(
    "4548-4",
    "Hemoglobin A1c/Hemoglobin.total in Blood",
    "%",
    "%",
    1,
    0.1,
    ((2014.0, 6.3), (2015.8, 8.9), (2017.0, 7.4), (2020.0, 7.8), (2022.0, 6.8), (2026.0, 6.5)),
    "4.0",
    "5.6",
)
GLUCOSE = Measure(
    "2345-7",
    "Glucose [Mass/volume] in Serum or Plasma",
    "mg/dL",
    "mg/dL",
    0,
    9.0,
    ((2014.0, 118.0), (2015.8, 196.0), (2017.0, 148.0), (2020.0, 156.0), (2026.0, 122.0)),
    "65",
    "99",
)
METABOLIC = (
    GLUCOSE,
    Measure(
        "3094-0",
        "Urea nitrogen [Mass/volume] in Serum or Plasma",
        "mg/dL",
        "mg/dL",
        0,
        1.5,
        _steady(15.0),
        "7",
        "25",
    ),
    Measure(
        "2160-0",
        "Creatinine [Mass/volume] in Serum or Plasma",
        "mg/dL",
        "mg/dL",
        2,
        0.04,
        ((2014.0, 0.80), (2026.0, 0.98)),
        "0.50",
        "1.05",
    ),
    Measure(
        "2951-2",
        "Sodium [Moles/volume] in Serum or Plasma",
        "mmol/L",
        "mmol/L",
        0,
        1.2,
        _steady(140.0),
        "135",
        "146",
    ),
    Measure(
        "2823-3",
        "Potassium [Moles/volume] in Serum or Plasma",
        "mmol/L",
        "mmol/L",
        1,
        0.2,
        _steady(4.3),
        "3.5",
        "5.3",
    ),
    Measure(
        "17861-6",
        "Calcium [Mass/volume] in Serum or Plasma",
        "mg/dL",
        "mg/dL",
        1,
        0.2,
        _steady(9.5),
        "8.6",
        "10.4",
    ),
    Measure(
        "1742-6",
        "Alanine aminotransferase [Enzymatic activity/volume] in Serum or Plasma",
        "U/L",
        "U/L",
        0,
        3.0,
        ((2014.0, 38.0), (2026.0, 24.0)),
        "6",
        "29",
    ),
    Measure(
        "1975-2",
        "Bilirubin.total [Mass/volume] in Serum or Plasma",
        "mg/dL",
        "mg/dL",
        2,
        0.0,
        _steady(0.40),
        "0.20",
        "1.20",
    ),
)
LIPIDS = (
    Measure(
        "2093-3",
        "Cholesterol [Mass/volume] in Serum or Plasma",
        "mg/dL",
        "mg/dL",
        0,
        6.0,
        ((2014.0, 246.0), (2016.0, 188.0), (2026.0, 158.0)),
        None,
        "200",
    ),
    Measure(
        "2571-8",
        "Triglyceride [Mass/volume] in Serum or Plasma",
        "mg/dL",
        "mg/dL",
        0,
        14.0,
        ((2014.0, 212.0), (2017.0, 168.0), (2026.0, 132.0)),
        None,
        "150",
    ),
    Measure(
        "2085-9",
        "Cholesterol in HDL [Mass/volume] in Serum or Plasma",
        "mg/dL",
        "mg/dL",
        0,
        2.0,
        ((2014.0, 41.0), (2026.0, 49.0)),
        "50",
        None,
    ),
    Measure(
        "13457-7",
        "Cholesterol in LDL [Mass/volume] in Serum or Plasma by calculation",
        "mg/dL",
        "mg/dL",
        0,
        5.0,
        ((2014.0, 163.0), (2016.0, 108.0), (2026.0, 82.0)),
        None,
        "100",
    ),
)
BLOOD_COUNT = (
    Measure(
        "6690-2",
        "Leukocytes [#/volume] in Blood by Automated count",
        "10*3/uL",
        "10*3/uL",
        1,
        0.6,
        _steady(6.8),
        "3.8",
        "10.8",
    ),
    Measure(
        "789-8",
        "Erythrocytes [#/volume] in Blood by Automated count",
        "10*6/uL",
        "10*6/uL",
        2,
        0.08,
        _steady(4.50),
        "3.80",
        "5.10",
    ),
    Measure(
        "718-7",
        "Hemoglobin [Mass/volume] in Blood",
        "g/dL",
        "g/dL",
        1,
        0.3,
        _steady(13.4),
        "11.7",
        "15.5",
    ),
    Measure(
        "4544-3",
        "Hematocrit [Volume Fraction] of Blood by Automated count",
        "%",
        "%",
        1,
        0.8,
        _steady(40.1),
        "35.0",
        "45.0",
    ),
    Measure(
        "777-3",
        "Platelets [#/volume] in Blood by Automated count",
        "10*3/uL",
        "10*3/uL",
        0,
        12.0,
        _steady(248.0),
        "140",
        "400",
    ),
)
SYSTOLIC = Measure(
    "8480-6",
    "Systolic blood pressure",
    "mmHg",
    "mm[Hg]",
    0,
    4.0,
    ((2014.0, 158.0), (2015.5, 138.0), (2019.0, 134.0), (2026.0, 126.0)),
)
DIASTOLIC = Measure(
    "8462-4",
    "Diastolic blood pressure",
    "mmHg",
    "mm[Hg]",
    0,
    3.0,
    ((2014.0, 96.0), (2015.5, 86.0), (2026.0, 78.0)),
)
PULSE = Measure("8867-4", "Heart rate", "beats/min", "/min", 0, 4.0, _steady(74.0))
WEIGHT = Measure(
    "29463-7",
    "Body weight",
    "kg",
    "kg",
    1,
    0.5,
    ((2014.0, 88.0), (2016.0, 91.2), (2021.0, 86.4), (2026.0, 79.8)),
)
TEMPERATURE = Measure("8310-5", "Body temperature", "Cel", "Cel", 1, 0.2, _steady(36.7))
OXYGEN = Measure(
    "59408-5",
    "Oxygen saturation in Arterial blood by Pulse oximetry",
    "%",
    "%",
    0,
    0.6,
    _steady(97.0),
)
HOME_GLUCOSE = Measure(
    "41653-7",
    "Glucose [Mass/volume] in Capillary blood by Glucometer",
    "mg/dL",
    "mg/dL",
    0,
    18.0,
    GLUCOSE.course,
)
