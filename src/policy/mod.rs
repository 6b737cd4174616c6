//! The MCP proxy that decides on tool calls and logs its decisions.
