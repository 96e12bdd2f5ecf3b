"""Which resource types are relayed, and which can be written, read and searched at 1upHealth.

What 1upHealth takes is from its capability statements: every type whose interactions include
`create`. R4 has `Binary` and `Provenance`, but without `create`. Another server says for itself
what it takes. docs/decisions/0010-resource-types.md has the reasons.
"""

from collections.abc import Mapping
from types import MappingProxyType

from uplift.fhir.versions import FhirVersion

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
AuditEvent Basic BiologicallyDerivedProduct BodyStructure Bundle CapabilityStatement CarePlan
CareTeam CatalogEntry ChargeItem ChargeItemDefinition Claim ClaimResponse ClinicalImpression
CodeSystem Communication CommunicationRequest CompartmentDefinition Composition ConceptMap
Condition Consent Contract Coverage CoverageEligibilityRequest CoverageEligibilityResponse
DetectedIssue Device DeviceDefinition DeviceMetric DeviceRequest DeviceUseStatement
DiagnosticReport DocumentManifest DocumentReference EffectEvidenceSynthesis Encounter Endpoint
EnrollmentRequest EnrollmentResponse EpisodeOfCare EventDefinition Evidence EvidenceVariable
ExampleScenario ExplanationOfBenefit FamilyMemberHistory Flag Goal GraphDefinition Group
GuidanceResponse HealthcareService ImagingStudy Immunization ImmunizationEvaluation
ImmunizationRecommendation ImplementationGuide InsurancePlan Invoice Library Linkage List
Location Measure MeasureReport Media Medication MedicationAdministration MedicationDispense
MedicationKnowledge MedicationRequest MedicationStatement MedicinalProduct
MedicinalProductAuthorization MedicinalProductContraindication MedicinalProductIndication
MedicinalProductIngredient MedicinalProductInteraction MedicinalProductManufactured
MedicinalProductPackaged MedicinalProductPharmaceutical MedicinalProductUndesirableEffect
MessageDefinition MessageHeader MolecularSequence NamingSystem NutritionOrder Observation
ObservationDefinition OperationDefinition Organization OrganizationAffiliation Patient
PaymentNotice PaymentReconciliation Person PlanDefinition Practitioner PractitionerRole
Procedure Questionnaire QuestionnaireResponse RelatedPerson RequestGroup ResearchDefinition
ResearchElementDefinition ResearchStudy ResearchSubject RiskAssessment RiskEvidenceSynthesis
Schedule SearchParameter ServiceRequest Slot Specimen SpecimenDefinition StructureDefinition
StructureMap Subscription Substance SubstanceNucleicAcid SubstancePolymer SubstanceProtein
SubstanceReferenceInformation SubstanceSourceMaterial SubstanceSpecification SupplyDelivery
SupplyRequest Task TerminologyCapabilities TestReport TestScript ValueSet VerificationResult
VisionPrescription
"""

ONEUP_TYPES: Mapping[FhirVersion, frozenset[str]] = MappingProxyType(
    {
        FhirVersion.DSTU2: frozenset(_DSTU2.split()),
        FhirVersion.STU3: frozenset(_STU3.split()),
        FhirVersion.R4: frozenset(_R4.split()),
    }
)
"""The types that can be created at 1upHealth, by version."""

HEALTHKIT_TYPES = frozenset(
    {"AllergyIntolerance", "Condition", "Coverage", "DiagnosticReport", "DocumentReference"}
    | {"Immunization", "MedicationDispense", "MedicationOrder", "MedicationRequest"}
    | {"MedicationStatement", "Observation", "Procedure"}
)
"""The types of HealthKit's clinical records: HKClinicalTypeIdentifier."""

READABLE_TYPES: Mapping[FhirVersion, frozenset[str]] = MappingProxyType(
    {
        **ONEUP_TYPES,
        FhirVersion.R4: ONEUP_TYPES[FhirVersion.R4] | {"Binary", "Provenance"},
    }
)
"""The types that can be read, by version: those whose interactions include `read`."""

NO_RECORDS = frozenset({"OperationOutcome", "Parameters"})
"""What an operation takes or answers. It says nothing of a person, so it is never relayed."""

RELAYED_TYPES: Mapping[FhirVersion, frozenset[str]] = MappingProxyType(
    {version: types - NO_RECORDS for version, types in READABLE_TYPES.items()}
)
"""The resource types of a version that may be records. A Bundle is one once it is validated: what
comes as one is taken apart before that."""

_R4_UNSEARCHABLE = """
Binary BiologicallyDerivedProduct CatalogEntry MedicinalProductIngredient
MedicinalProductManufactured ObservationDefinition Provenance SubstanceNucleicAcid
SubstancePolymer SubstanceProtein SubstanceReferenceInformation SubstanceSourceMaterial
"""

SEARCHABLE_TYPES: Mapping[FhirVersion, frozenset[str]] = MappingProxyType(
    {
        **READABLE_TYPES,
        FhirVersion.R4: READABLE_TYPES[FhirVersion.R4] - set(_R4_UNSEARCHABLE.split()),
    }
)
"""The types that can be searched, by version: those whose interactions include `search-type`."""
