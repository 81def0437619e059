"""``python -m service`` is the command ``gmm-service``."""

import gc


def main() -> None:
    # What is imported stays: to look for garbage among it takes a fifth of a second of each start.
    gc.disable()
    from service.cli import app  # noqa: PLC0415 - after the line above

    gc.freeze()
    gc.enable()
    app(prog_name="gmm-service")


if __name__ == "__main__":
    main()
