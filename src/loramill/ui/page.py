"""The frame around every page."""

import streamlit as st


def draw() -> None:
    st.title("loramill")
