// usage: node upload.mjs <artifact-v4|artifact-v7> <name> <file> [days]   uploads one file, prints what the client returns
import path from 'node:path';
const [, , which, name, file, days] = process.argv;
const module = await import(which);
const client = new (module.DefaultArtifactClient ?? module.default.constructor)();
const options = days ? { retentionDays: Number(days) } : {};
const answer = await client.uploadArtifact(name, [file], path.dirname(file), options);
console.log(JSON.stringify({ result: answer }));
