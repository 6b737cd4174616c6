"""The few messages of MCP over stdio that this fixture needs, client and server side."""

import json
import subprocess

PROTOCOL = "2025-06-18"


class McpServer:
    """A server process, spoken to one request at a time."""

    def __init__(self, command):
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        self._id = 0
        client = {"name": "gemini-google-genai-fixture", "version": "1.0.0"}
        self._request("initialize", {"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": client})
        self._send({"method": "notifications/initialized"})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.stdin.close()
        self._process.wait()

    def list_tools(self):
        return self._request("tools/list", {})["tools"]

    def call_tool(self, name, arguments, tool_call_id):
        params = {"name": name, "arguments": arguments, "_meta": {"tool_call_id": tool_call_id}}
        result = self._request("tools/call", params)
        text = "".join(part["text"] for part in result["content"])
        if result.get("isError"):
            raise RuntimeError(f"{name} failed: {text}")
        return text

    def _request(self, method, params):
        self._id += 1
        self._send({"id": self._id, "method": method, "params": params})
        for line in self._process.stdout:
            reply = json.loads(line)
            if reply.get("id") != self._id:
                continue
            if "error" in reply:
                raise RuntimeError(f"{method} was refused: {reply['error']}")
            return reply["result"]
        raise RuntimeError(f"the server closed before it answered {method}")

    def _send(self, message):
        self._process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        self._process.stdin.flush()


def serve(requests, replies, methods):
    """Answers requests by `methods`, name to function of the params, until the input ends."""
    for line in requests:
        message = json.loads(line)
        if "id" not in message:
            continue
        reply = {"jsonrpc": "2.0", "id": message["id"]}
        try:
            reply["result"] = methods[message["method"]](message.get("params", {}))
        except KeyError as missing:
            reply["error"] = {"code": -32601, "message": f"no method or parameter {missing}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()
