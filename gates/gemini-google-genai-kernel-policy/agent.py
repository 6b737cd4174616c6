"""The measured agent: one real google-genai run over a recorded conversation, one tool call, no network.

The agent reads its task from gemini-input.txt. The model's turns come from cassette.yaml, replayed by vcrpy; so does
the id of the one function call. The SDK reports that call, the agent sends it over MCP stdio through the proxy, which
decides, and server.py reads policy-input.txt. The id travels as `_meta.tool_call_id` of the MCP request.
"""

import os
import sys
from pathlib import Path

FIXTURE = Path(__file__).resolve().parent
# The isolated target folder, and nothing else beside the standard library.
sys.path[:0] = [str(FIXTURE / "site-packages"), str(FIXTURE)]

import vcr  # noqa: E402
from google import genai  # noqa: E402
from google.genai import types  # noqa: E402

from mcp_stdio import McpServer  # noqa: E402
from sdk_events import SdkEvents  # noqa: E402

MODEL = "gemini-2.5-flash"
# Replay needs no key, but the client wants one; requests that leave the cassette fail before any connection.
NOT_A_KEY = "replayed-from-cassette"


def server_command():
    environ = os.environ
    return [
        environ["ASSAY_GATES_BIN"], "mcp-wrap",
        "--policy", str(FIXTURE / "policy.yaml"),
        "--decision-log", environ["ASSAY_RUNNER_POLICY_DECISION_LOG"],
        "--event-source", f"assay://runner-spike/{environ['ASSAY_RUNNER_RUN_ID']}",
        "--label", "files",
        "--", sys.executable, *python_flags(), str(FIXTURE / "server.py"),
    ]


def python_flags():
    """As this interpreter was started: no site folders, no bytecode written."""
    return ["-B", "-S", "-s", "-P"]


def task():
    """What the agent is asked to do; it is read before any call."""
    with open(Path(os.environ["ASSAY_GATES_WORK"]) / "gemini-input.txt", encoding="utf-8") as file:
        return file.read()


def declaration(tool):
    return types.FunctionDeclaration(
        name=tool["name"], description=tool["description"], parameters_json_schema=tool["inputSchema"]
    )


def converse(client, server, events):
    tools = types.Tool(function_declarations=[declaration(tool) for tool in server.list_tools()])
    config = types.GenerateContentConfig(
        tools=[tools],
        # The agent makes the call itself: automatic calling would not hand on the call's id.
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
    )
    contents = [types.Content(role="user", parts=[types.Part(text=f"{task()}Read policy-input.txt.")])]
    asked = client.models.generate_content(model=MODEL, contents=contents, config=config)
    [call] = asked.function_calls or []
    events.write("tool_call_started", call)
    text = server.call_tool(call.name, call.args, tool_call_id=call.id)
    events.write("tool_call_completed", call)
    answer = types.FunctionResponse(id=call.id, name=call.name, response={"output": text})
    contents += [asked.candidates[0].content, types.Content(role="user", parts=[types.Part(function_response=answer)])]
    return client.models.generate_content(model=MODEL, contents=contents, config=config).text


def main():
    events = SdkEvents()
    # Every request must be in the cassette, body included, and every response in it must be asked for.
    recorder = vcr.VCR(
        record_mode="none", match_on=["method", "scheme", "host", "port", "path", "query", "body"]
    )
    try:
        with (
            McpServer(server_command()) as server,
            recorder.use_cassette(str(FIXTURE / "cassette.yaml")) as cassette,
            genai.Client(api_key=NOT_A_KEY, vertexai=False) as client,
        ):
            answer = converse(client, server, events)
            if not cassette.all_played:
                raise RuntimeError("the conversation ended before the cassette did")
        events.write("run_finished")
        print(answer)
    except Exception:
        events.write("run_failed")
        raise


if __name__ == "__main__":
    main()
