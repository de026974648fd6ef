@st.cache_resource
def get_model():
    return AutoModel.from_pretrained(path, trust_remote_code=True).half().cuda().eval()


def clean():
    if torch.cuda.is_available():
        with torch.cuda.device("cuda:0"):
            torch.cuda.empty_cache()