// A model that lives in this process: it answers by what it is given, never by time or chance.

import { Usage } from '@openai/agents';

const CALL_ID = 'tc_runner_policy_001';
const SECOND_CALL_ID = 'tc_runner_policy_002';
const UNBOUND_CALL_ID = 'tc_runner_unbound_001';

const read = (callId) => call(callId, 'read_file', { path: 'policy-input.txt' });

// The turns of a conversation, each decided by how many tool results came before it.
const TURNS = {
  unbound_tool_call: [read(CALL_ID), call(UNBOUND_CALL_ID, 'count_words', { text: 'three plain words' })],
  two_decisions: [read(CALL_ID), read(SECOND_CALL_ID)],
};
const ONE_CALL = [read(CALL_ID)];

function call(callId, name, args) {
  return { type: 'function_call', callId, name, arguments: JSON.stringify(args), status: 'completed' };
}

function message(text) {
  return {
    type: 'message',
    role: 'assistant',
    status: 'completed',
    content: [{ type: 'output_text', text }],
  };
}

class LocalModel {
  #turns;

  constructor(scenario) {
    this.#turns = TURNS[scenario] ?? ONE_CALL;
  }

  async getResponse({ input }) {
    const results = Array.isArray(input) ? input.filter((item) => item.type === 'function_call_result') : [];
    const next = this.#turns[results.length];
    return { usage: new Usage(), output: [next ?? message(this.#conclusion(results))] };
  }

  // The run only counts as finished when the tool's answer really came back.
  #conclusion(results) {
    if (!JSON.stringify(results[0]?.output ?? '').includes('policy fixture input')) {
      throw new Error(`the tool did not return the file: ${JSON.stringify(results)}`);
    }
    return 'The file was read.';
  }

  async *getStreamedResponse() {
    throw new Error('this model does not stream');
  }
}

export class LocalModelProvider {
  #model;

  constructor(scenario) {
    this.#model = new LocalModel(scenario);
  }

  getModel() {
    return this.#model;
  }
}
