// Pages through all Observations with SMART's JavaScript client, and prints them as one JSON array.
const smart = require('fhirclient');

const [serverUrl, token] = process.argv.slice(2);
const storage = { get: () => null, set: () => null, unset: () => null };
const client = smart({ headers: {}, url: '/' }, {}, storage).client({
  serverUrl,
  tokenResponse: { access_token: token },
});

async function main() {
  const version = await client.getFhirVersion(); // reads metadata
  if (version !== '4.0.1') throw new Error(`FHIR version ${version}`);
  const found = await client.request('Observation?_count=5', { pageLimit: 0, flat: true });
  const refused = await client.request('Observation/nobody-has-it').then(
    () => null,
    (error) => error,
  );
  if (refused?.status !== 404) throw new Error('found what is not there');
  console.log(JSON.stringify(found));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
