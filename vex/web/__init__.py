"""The web interface: string templates, one style sheet, one small script; everything works without the script."""
