"""What Streamlit runs for every look at the page."""

from loramill.ui.page import draw

draw()
