// usage: node download.mjs <artifact-v4|artifact-v7> <name> <folder>   finds an artifact of this run and unpacks it
const [, , which, name, folder] = process.argv;
const module = await import(which);
const client = new (module.DefaultArtifactClient ?? module.default.constructor)();
const found = await client.getArtifact(name);
const answer = await client.downloadArtifact(found.artifact.id, { path: folder, expectedHash: found.artifact.digest });
console.log(JSON.stringify({ result: { ...answer, digest: found.artifact.digest } }));
