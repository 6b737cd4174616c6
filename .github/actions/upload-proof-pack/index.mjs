// Runs `assay-gates upload` with the runtime token of this job. The token reaches that one process through its
// environment, never an argument, a file or a later step. `assay-gates upload` writes the outputs itself.
import { spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { delimiter, isAbsolute, join } from 'node:path';
import { pathToFileURL } from 'node:url';

/** What the child may see: where it runs, where to write outputs, and what the upload needs. */
const PASSED = /^(PATH|HOME|LANG|LC_[A-Z]+|TMPDIR|TZ|CI|RUNNER_TEMP|(HTTPS?|NO|ALL)_PROXY|https?_proxy|no_proxy|all_proxy|SSL_CERT_FILE|SSL_CERT_DIR|RUST_LOG|GITHUB_[A-Z_]+|ACTIONS_RESULTS_URL|ACTIONS_RUNTIME_TOKEN)$/;

/** Data of a workflow command: no character of it may end the command. */
const data = (text) => String(text).replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A');

function input(env, name, required = true) {
  const value = (env[`INPUT_${name.toUpperCase()}`] ?? '').trim();
  if (required && value === '') throw new Error(`input ${name} is empty`);
  return value;
}

function executable(binary, env) {
  const places = isAbsolute(binary) || binary.includes('/') ? [binary] : (env.PATH ?? '').split(delimiter).map((folder) => join(folder, binary));
  for (const place of places) {
    try {
      accessSync(place, constants.X_OK);
      return place;
    } catch {
      // The next place on the path.
    }
  }
  throw new Error(`expected an executable, found none: ${binary}`);
}

/** What to run, from the action's environment alone. Throws when something that an upload needs is missing. */
export function plan(env) {
  const pack = input(env, 'pack');
  const name = input(env, 'name');
  const command = executable(input(env, 'binary'), env);
  for (const needed of ['ACTIONS_RESULTS_URL', 'ACTIONS_RUNTIME_TOKEN']) {
    if (!env[needed]) throw new Error(`${needed} is not set: the runner gives it to actions only`);
  }
  const child = Object.fromEntries(Object.entries(env).filter(([key]) => PASSED.test(key)));
  const token = input(env, 'token', false);
  delete child.GITHUB_TOKEN;
  if (token !== '') child.GITHUB_TOKEN = token;
  // `--` ends the options: a pack or name that begins with a dash stays what it is.
  return { command, args: ['upload', `--name=${name}`, '--', pack], env: child, masks: [env.ACTIONS_RUNTIME_TOKEN, token].filter(Boolean) };
}

/** Runs the plan; gives the exit code. */
export function run(env, out = process.stdout) {
  const planned = plan(env);
  for (const secret of planned.masks) out.write(`::add-mask::${data(secret)}\n`);
  return new Promise((resolve, reject) => {
    const child = spawn(planned.command, planned.args, { env: planned.env, stdio: ['ignore', 'inherit', 'inherit'] });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      if (signal) out.write(`::error::assay-gates upload was ended by ${signal}\n`);
      resolve(code ?? 13);
    });
  });
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  try {
    process.exitCode = await run(process.env);
  } catch (error) {
    process.stdout.write(`::error::${data(error.message)}\n`);
    process.exitCode = 13;
  }
}
