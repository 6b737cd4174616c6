"""What the agent reports of the SDK's run, one JSON line per event.

google-genai has no lifecycle hooks: the events are written at the points where the SDK hands over a call and
takes its answer. Name and version are those of the installed package.
"""

import json
import os
from importlib.metadata import metadata

SOURCE = "gemini-google-genai-fixture"
PACKAGE = "google-genai"


class SdkEvents:
    def __init__(self):
        self._log = open(os.environ["ASSAY_RUNNER_SDK_EVENT_LOG"], "a", encoding="utf-8")
        installed = metadata(PACKAGE)
        self._sdk = {"sdk_name": installed["Name"], "sdk_version": installed["Version"]}
        self._seq = 0

    def write(self, event_type, call=None):
        event = {
            "schema": os.environ["ASSAY_RUNNER_SDK_EVENT_SCHEMA"],
            "run_id": os.environ["ASSAY_RUNNER_RUN_ID"],
            "seq": self._seq,
            "event_type": event_type,
            "source": SOURCE,
            **self._sdk,
            "tool_call_id": call.id if call else None,
            "tool": call.name if call else None,
        }
        self._seq += 1
        self._log.write(json.dumps(event, separators=(",", ":")) + "\n")
        self._log.flush()
