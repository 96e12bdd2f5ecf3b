"""Clinical notes: short letters, and stays in hospital whose charts run to some hundred KB."""

import base64

from uplift.sandbox.export.entry import Json, dice
from uplift.sandbox.export.person import BIRTH_DATE, PATIENT_NAME

_COMPLAINTS = (
    "Feels well. No chest pain, no shortness of breath, no visual changes.",
    "Morning stiffness in the right knee for ten minutes; walks two miles on most days.",
    "Checks her sugar twice a day; readings mostly between 110 and 160 mg/dL.",
    "Mild hay fever since April; itchy eyes, controlled with an antihistamine.",
    "Tolerates all medicines. No hypoglycaemia, no dizziness, no cough.",
    "Sleeps six hours; stress at work after the move to the café on the quay.",
)
_PLANS = (
    "Continue current medicines. Repeat HbA1c and lipids in three months.",
    "Increase walking to thirty minutes daily. Dietitian referral offered.",
    "Blood pressure at goal (<140/90); no change. Home readings to be brought along.",
    "Annual eye and foot examination due; referral sent.",
    "Flu vaccine given today. Discussed recombinant zoster vaccine.",
)


def visit_note(date: str, facility: str, seed: int) -> str:
    """A progress note of one visit."""
    chance = dice(seed, "note", date)
    complaints = (
        "\n".join(f"- {each}" for each in _COMPLAINTS if chance.random() < 0.6)
        or "- No complaints."
    )
    plans = "\n".join(
        f"{number}. {each}"
        for number, each in enumerate((each for each in _PLANS if chance.random() < 0.7), 1)
    )
    return (
        f"{facility}\nPROGRESS NOTE  {date}\n\nPatient: {PATIENT_NAME}, born {BIRTH_DATE}\n\n"
        f"SUBJECTIVE\n{complaints}\n\nOBJECTIVE\nAlert, in no distress. Lungs clear. Heart "
        f"regular, no murmur. Feet: pulses present, monofilament 10/10.\n\nPLAN\n{plans}\n"
    )


def stay_note(date: str, facility: str, reason: str, lines: int, seed: int) -> str:
    """A discharge summary with the monitor's chart, a line each minute."""
    chance = dice(seed, "stay", date)
    chart = []
    for minute in range(lines):
        day, rest = divmod(minute, 24 * 60)
        chart.append(
            f"day {day + 1} {rest // 60:02}:{rest % 60:02}  "
            f"BP {124 + int(chance.random() * 24)}/{70 + int(chance.random() * 16)}  "
            f"HR {64 + int(chance.random() * 26)}  SpO2 {94 + int(chance.random() * 5)} %  "
            f"T {36.4 + chance.random() * 1.2:.1f} °C"
        )
    return (
        f"{facility}\nDISCHARGE SUMMARY  {date}\n\nPatient: {PATIENT_NAME}, born {BIRTH_DATE}\n"
        f"Reason for admission: {reason}\n\nCOURSE\nUneventful. Mobilised on the first day. "
        "Glucose held between 120 and 180 mg/dL with a basal-bolus scheme.\n\nMONITORING\n"
        + "\n".join(chart)
        + "\n"
    )


def attachment(title: str, text: str) -> Json:
    """An Attachment as an app builds it from a note that Apple Health gives it apart."""
    return {
        "contentType": "text/plain; charset=utf-8",
        "data": base64.b64encode(text.encode()).decode(),
        "title": title,
    }
