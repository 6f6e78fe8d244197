import pickle

import pytest
from mmengine.registry import Registry
from torch.utils.data import DataLoader, Dataset

from ghostdet.errors import UserError

MESSAGE = "a.jpg: cannot be read\nRestore it: or remove it"


class Broken(Dataset):
    def __init__(self, message: str):
        self.message = message

    def __len__(self):
        return 1

    def __getitem__(self, index):
        try:
            raise OSError("the reason")
        except OSError as err:
            raise UserError(self.message) from err


@pytest.mark.parametrize("message", [MESSAGE, "Caught in the act", ""])
def test_text(message):
    assert UserError(message).text == message
    assert pickle.loads(pickle.dumps(UserError(message))).text == message


@pytest.mark.parametrize(
    "message, text",
    [
        ("a\x1b[2Jb\r\x07.jpg", r"a\x1b[2Jb\r\x07.jpg"),
        ("\udc80 \u202e", r"\udc80 \u202e"),
        ("no " + "a" * 10**6, f"no {'a' * 100}..."),
        ("größer als 東京", "größer als 東京"),
    ],
)
def test_names_that_a_terminal_would_obey(message, text):
    assert UserError(message).text == text


@pytest.mark.parametrize("message", [MESSAGE, f"ghostdet.errors.UserError: {MESSAGE}"])
def test_through_a_worker(message, failure):
    error = failure(DataLoader(Broken(message), num_workers=1))
    assert type(error) is UserError
    assert "Traceback" in str(error)
    assert error.text == message


def test_through_a_registry():
    registry = Registry("things")

    @registry.register_module()
    def thing():
        raise UserError(MESSAGE)

    with pytest.raises(UserError) as caught:
        registry.build(dict(type="thing"))
    assert caught.value.text == MESSAGE
