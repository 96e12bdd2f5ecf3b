"""Which resource types each FHIR version of 1upHealth knows, and what may be done with them.

Derived from 1upHealth's three capability statements (`/metadata`, fetched 2026-07-24).
"""

_DSTU2 = """
Account AllergyIntolerance Appointment AppointmentResponse AuditEvent Basic Binary BodySite
Bundle CarePlan Claim ClaimResponse ClinicalImpression Communication CommunicationRequest
Composition ConceptMap Condition Conformance Contract Coverage DataElement DetectedIssue Device
DeviceComponent DeviceMetric DeviceUseRequest DeviceUseStatement DiagnosticOrder
DiagnosticReport DocumentManifest DocumentReference EligibilityRequest EligibilityResponse
Encounter EnrollmentRequest EnrollmentResponse EpisodeOfCare ExplanationOfBenefit
FamilyMemberHistory Flag Goal Group HealthcareService ImagingObjectSelection ImagingStudy
Immunization ImmunizationRecommendation ImplementationGuide List Location Media Medication
MedicationAdministration MedicationDispense MedicationOrder MedicationStatement MessageHeader
NamingSystem NutritionOrder Observation OperationDefinition OperationOutcome Order OrderResponse
Organization Parameters Patient PaymentNotice PaymentReconciliation Person Practitioner
Procedure ProcedureRequest ProcessRequest ProcessResponse Provenance Questionnaire
QuestionnaireResponse ReferralRequest RelatedPerson RiskAssessment Schedule SearchParameter Slot
Specimen StructureDefinition Subscription Substance SupplyDelivery SupplyRequest TestScript
ValueSet VisionPrescription
"""

_STU3 = """
Account ActivityDefinition AdverseEvent AllergyIntolerance Appointment AppointmentResponse
AuditEvent Basic Binary BodySite Bundle CapabilityStatement CarePlan CareTeam ChargeItem Claim
ClaimResponse ClinicalImpression CodeSystem Communication CommunicationRequest
CompartmentDefinition Composition ConceptMap Condition Consent Contract Coverage DataElement
DetectedIssue Device DeviceComponent DeviceMetric DeviceRequest DeviceUseStatement
DiagnosticReport DocumentManifest DocumentReference EligibilityRequest EligibilityResponse
Encounter Endpoint EnrollmentRequest EnrollmentResponse EpisodeOfCare ExpansionProfile
ExplanationOfBenefit FamilyMemberHistory Flag Goal GraphDefinition Group GuidanceResponse
HealthcareService ImagingManifest ImagingStudy Immunization ImmunizationRecommendation
ImplementationGuide Library Linkage List Location Measure MeasureReport Media Medication
MedicationAdministration MedicationDispense MedicationRequest MedicationStatement
MessageDefinition MessageHeader NamingSystem NutritionOrder Observation OperationDefinition
OperationOutcome Organization Parameters Patient PaymentNotice PaymentReconciliation Person
PlanDefinition Practitioner PractitionerRole Procedure ProcedureRequest ProcessRequest
ProcessResponse Provenance Questionnaire QuestionnaireResponse ReferralRequest RelatedPerson
RequestGroup ResearchStudy ResearchSubject RiskAssessment Schedule SearchParameter Sequence
ServiceDefinition Slot Specimen StructureDefinition StructureMap Subscription Substance
SupplyDelivery SupplyRequest Task TestReport TestScript ValueSet VisionPrescription
"""

_R4 = """
Account ActivityDefinition AdverseEvent AllergyIntolerance Appointment AppointmentResponse
AuditEvent Basic Binary BiologicallyDerivedProduct BodyStructure Bundle CapabilityStatement
CarePlan CareTeam CatalogEntry ChargeItem ChargeItemDefinition Claim ClaimResponse
ClinicalImpression CodeSystem Communication CommunicationRequest CompartmentDefinition
Composition ConceptMap Condition Consent Contract Coverage CoverageEligibilityRequest
CoverageEligibilityResponse DetectedIssue Device DeviceDefinition DeviceMetric DeviceRequest
DeviceUseStatement DiagnosticReport DocumentManifest DocumentReference EffectEvidenceSynthesis
Encounter Endpoint EnrollmentRequest EnrollmentResponse EpisodeOfCare EventDefinition Evidence
EvidenceVariable ExampleScenario ExplanationOfBenefit FamilyMemberHistory Flag Goal
GraphDefinition Group GuidanceResponse HealthcareService ImagingStudy Immunization
ImmunizationEvaluation ImmunizationRecommendation ImplementationGuide InsurancePlan Invoice
Library Linkage List Location Measure MeasureReport Media Medication MedicationAdministration
MedicationDispense MedicationKnowledge MedicationRequest MedicationStatement MedicinalProduct
MedicinalProductAuthorization MedicinalProductContraindication MedicinalProductIndication
MedicinalProductIngredient MedicinalProductInteraction MedicinalProductManufactured
MedicinalProductPackaged MedicinalProductPharmaceutical MedicinalProductUndesirableEffect
MessageDefinition MessageHeader MolecularSequence NamingSystem NutritionOrder Observation
ObservationDefinition OperationDefinition Organization OrganizationAffiliation Patient
PaymentNotice PaymentReconciliation Person PlanDefinition Practitioner PractitionerRole
Procedure Provenance Questionnaire QuestionnaireResponse RelatedPerson RequestGroup
ResearchDefinition ResearchElementDefinition ResearchStudy ResearchSubject RiskAssessment
RiskEvidenceSynthesis Schedule SearchParameter ServiceRequest Slot Specimen SpecimenDefinition
StructureDefinition StructureMap Subscription Substance SubstanceNucleicAcid SubstancePolymer
SubstanceProtein SubstanceReferenceInformation SubstanceSourceMaterial SubstanceSpecification
SupplyDelivery SupplyRequest Task TerminologyCapabilities TestReport TestScript ValueSet
VerificationResult VisionPrescription
"""

_R4_NOT_SEARCHED = """
Binary BiologicallyDerivedProduct CatalogEntry MedicinalProductIngredient
MedicinalProductManufactured ObservationDefinition Provenance SubstanceNucleicAcid
SubstancePolymer SubstanceProtein SubstanceReferenceInformation SubstanceSourceMaterial
"""

TYPES: dict[str, frozenset[str]] = {
    "dstu2": frozenset(_DSTU2.split()),
    "stu3": frozenset(_STU3.split()),
    "r4": frozenset(_R4.split()),
}
"""Resource types by version segment, in the exact case that a path must have."""

FHIR_VERSIONS: dict[str, str] = {"dstu2": "1.0.2", "stu3": "3.0.2", "r4": "4.0.1"}
"""The FHIR release that each capability statement names."""

_READ_ONLY = {"r4": frozenset({"Binary", "Provenance"})}
_NOT_SEARCHED = {"r4": frozenset(_R4_NOT_SEARCHED.split())}


def is_known(version: str, resource_type: str) -> bool:
    """Whether this version serves this type at all."""
    return resource_type in TYPES.get(version, ())


def may_write(version: str, resource_type: str) -> bool:
    """Whether create and update are listed for a known type."""
    return resource_type not in _READ_ONLY.get(version, ())


def may_search(version: str, resource_type: str) -> bool:
    """Whether search is listed for a known type."""
    return resource_type not in _NOT_SEARCHED.get(version, ())
