"""An answer that is an error, in OpenAI's shape."""

import orjson


class Refusal(Exception):  # noqa: N818 - an answer, not a fault
    """A request that an engine does not serve: HTTP status and OpenAI's error object."""

    def __init__(self, status: int, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param

    def body(self) -> bytes:
        """The JSON that OpenAI's clients read the message from."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {
            "message": self.message,
            "type": kind,
            "param": self.param,
            "code": self.code,
        }
        return orjson.dumps({"error": error})
