"""The MCP server behind the proxy: one tool, `read_file`, that reads a file of the work folder and nothing else."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from mcp_stdio import PROTOCOL, serve  # noqa: E402

WORK = Path(os.environ["ASSAY_GATES_WORK"])

READ_FILE = {
    "name": "read_file",
    "description": "Reads a text file of the work folder.",
    "inputSchema": {
        "type": "object",
        "properties": {"path": {"type": "string", "description": "Path relative to the work folder."}},
        "required": ["path"],
    },
}


def initialize(_params):
    server = {"name": "files", "version": "1.0.0"}
    return {"protocolVersion": PROTOCOL, "capabilities": {"tools": {}}, "serverInfo": server}


def call_tool(params):
    try:
        if params["name"] != "read_file":
            raise ValueError(f"no tool {params['name']}")
        path = Path(os.path.normpath(WORK / params["arguments"]["path"]))
        if not path.is_relative_to(WORK):
            raise ValueError(f"{path} is not in the work folder")
        with open(path, encoding="utf-8") as file:
            return {"content": [{"type": "text", "text": file.read()}]}
    except (ValueError, OSError) as problem:
        return {"content": [{"type": "text", "text": str(problem)}], "isError": True}


serve(
    sys.stdin,
    sys.stdout,
    {
        "initialize": initialize,
        "ping": lambda _params: {},
        "tools/list": lambda _params: {"tools": [READ_FILE]},
        "tools/call": call_tool,
    },
)
