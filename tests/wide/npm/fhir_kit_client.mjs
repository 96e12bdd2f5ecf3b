// Pages through all Observations with fhir-kit-client, and prints them as one JSON array.
import { Client } from 'fhir-kit-client';

const [baseUrl, bearerToken] = process.argv.slice(2);
const client = new Client({ baseUrl, bearerToken });
const statement = await client.capabilityStatement();
if (statement.resourceType !== 'CapabilityStatement') throw new Error('no metadata');

const found = [];
let page = await client.search({ resourceType: 'Observation', searchParams: { _count: 5 } });
while (page) {
  found.push(...page.entry.map((entry) => entry.resource));
  page = await client.nextPage({ bundle: page });
}
const one = await client.read({ resourceType: 'Observation', id: found[0].id });
if (one.id !== found[0].id) throw new Error('another resource');
try {
  await client.read({ resourceType: 'Observation', id: 'nobody-has-it' });
  throw new Error('found what is not there');
} catch (error) {
  if (error.response?.data?.resourceType !== 'OperationOutcome') throw error;
}
console.log(JSON.stringify(found));
