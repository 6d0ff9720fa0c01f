"""`python -m audit`, for launchers that start a module: accelerate launch -m audit unlearn …"""

from audit.cli.main import main

if __name__ == "__main__":
    main()
