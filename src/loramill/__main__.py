"""``python -m loramill``, for launchers of several processes: ``torchrun --nproc-per-node 2 -m loramill train ...``."""

from loramill.cli.main import main

if __name__ == "__main__":
    main()
